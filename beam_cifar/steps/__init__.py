"""Transforms: steps that change a dataset in the plan, and the pure functions on blocks that carry them out.

`registry` lists the steps and makes them from options; `base` is what a step is. Planning, jobs, the command line and
`dataset` import from here.
"""
