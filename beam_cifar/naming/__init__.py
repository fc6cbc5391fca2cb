"""File names from names in data: safe path components, paths from ids, unique ids, and collisions.

Pure functions. Imported by formats, planning and steps.
"""
