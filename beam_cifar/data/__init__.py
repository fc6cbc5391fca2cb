"""The vocabulary: labels, blocks and their Arrow schema, rows without pixels, limits, text.

Plain types and pure functions, no I/O. Every package may import from here; this one imports nothing above `errors`.
"""
