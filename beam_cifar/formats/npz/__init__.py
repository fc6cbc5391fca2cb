"""NumPy arrays, one `.npz` file for each subset: `read` and `write`. The registry loads these modules."""
