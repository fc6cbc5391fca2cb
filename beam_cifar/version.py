"""The version of this package, as shown by `--version` and in manifests."""

__version__ = "0.1.0"
