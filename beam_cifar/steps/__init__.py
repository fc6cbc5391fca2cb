"""Transforms: steps that change a dataset in the plan, and the pure functions that apply them to blocks.

`registry` lists the steps and creates them from options; `base` defines a step. Imported by planning, jobs, the
command line and `dataset`.
"""
