"""Statistics, comparison and validation of datasets.

`tally` reduces a block to what these need, `reading` collects the tallies of a dataset, and the other modules derive
results from them. Imported by the public package, the report and the command line.
"""
