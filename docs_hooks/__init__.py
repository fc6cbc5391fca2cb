"""What the site of the docs has beside the pages: `mkdocs.yml` names these modules, `make docs` runs them."""
