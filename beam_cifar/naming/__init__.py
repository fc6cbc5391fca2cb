"""How names in data become names of files: safe components, paths of ids, unique ids, and collisions.

Pure functions. Formats, planning and steps import from here.
"""
