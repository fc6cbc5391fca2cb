"""A job from preparation to manifest, without Beam: reading and writing parts, finishing, resuming, cleaning up.

`prepare` plans a job and locks its output; `pipeline` runs these functions on workers, `serial` in this process.
"""
