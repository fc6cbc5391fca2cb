"""Parquet with images as files: `read` finds them, `schema` and `labels` say what columns mean, `write` writes ours."""
