"""What several formats share: rows in files of one kind, names, and the encodings that containers are made of."""
