"""The only package that imports Beam: `convert` has the main pipeline, the other modules its steps and runners.

The public API, the command line, `analysis` and `dataset` import from here. `imports` loads Beam quietly and does not
itself need it.
"""
