"""The vocabulary: labels, blocks and their Arrow schema, rows without pixels, limits, text.

Plain types and pure functions, without input or output. Everybody may import from here; this room imports nothing above
`errors`.
"""
