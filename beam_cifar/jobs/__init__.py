"""A job from its preparation to its manifest, without Beam: reading and writing a part, finishing, resuming, cleaning.

`prepare` plans a job and holds its output; `pipeline` runs these functions on workers, `serial` in this process.
"""
