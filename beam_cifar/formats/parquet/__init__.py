"""Parquet with encoded images: `read` finds files, `schema` and `labels` interpret columns, `write` writes our own."""
