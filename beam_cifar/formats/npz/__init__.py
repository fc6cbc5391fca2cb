"""NumPy arrays, one `.npz` file for each subset: reading, and writing. Loaded by the registry."""
