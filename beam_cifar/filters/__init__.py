"""What selects rows: XPath expressions over items, what they look at, and the selection of a job.

`selection` is what others import; `xpath` evaluates, `xpath_static` says what an expression looks at without a row.
"""
