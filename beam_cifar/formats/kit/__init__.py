"""Code shared by several formats: rows in files of one kind, names, and the encodings used by containers."""
