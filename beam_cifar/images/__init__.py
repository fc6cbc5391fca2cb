"""Images: headers, decoding, encoding, resizing, digests, and runs of alike images in a block.

Pure functions on bytes and arrays; no file and no data set is known here. Formats, steps and reports import from here.
"""
