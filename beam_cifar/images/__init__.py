"""Images: headers, decoding, encoding, resizing, digests, and runs of similar images in a block.

Pure functions on bytes and arrays, independent of files and datasets; used by formats, steps and reports.
"""
