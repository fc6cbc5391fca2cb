"""What a dataset is made of, whether two are the same, whether one is sound: stats, diff, validate.

`tally` is what one look at a block leaves, `reading` puts tallies together, the others derive from them. The public
face, the report and the command line import from here.
"""
