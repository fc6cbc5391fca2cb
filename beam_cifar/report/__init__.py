"""One HTML page about a dataset. `build.report` writes it; nothing else here is for other packages.

`model` is what the page shows; `classes`, `sheets`, `pixels`, `duplicates` and `provenance` work out one section each,
without HTML; `pictures` picks and draws the images; `page` fills `templates/`.
"""
