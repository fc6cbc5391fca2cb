"""Images: headers, decoding, encoding, resizing, digests, and runs of alike images in a block.

Pure functions on bytes and arrays; no file and no dataset is known here. Formats, steps and reports import from here.
"""
