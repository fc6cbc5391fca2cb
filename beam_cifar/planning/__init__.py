"""Turns what is known about the input into tasks, before any pixel is read.

`plan` has the types, `survey` scans the inputs, and `by_counts`, `by_rows` and `by_examples` decide which row goes
where. `jobs` and everything above it import from here; this package never starts a job.
"""
