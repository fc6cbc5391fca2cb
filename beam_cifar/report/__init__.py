"""The HTML report on a dataset. Other packages import only `build.report`, which writes it.

`model` has the contents of the page; `classes`, `sheets`, `pixels`, `duplicates` and `provenance` compute one section
each, without HTML; `pictures` selects and draws the images; `page` fills in `templates/`.
"""
