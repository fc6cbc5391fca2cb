"""The only room that imports Beam: `convert` has the straight line, the other modules its steps and runners.

The public face, the command line, `analysis` and `dataset` import from here. `imports` loads Beam quietly and needs
none.
"""
