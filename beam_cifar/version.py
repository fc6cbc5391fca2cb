"""The version of this package, which manifests and `--version` name."""

__version__ = "0.1.0"
