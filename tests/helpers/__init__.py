"""What tests share: readers and writers that have nothing of the package's code, servers, clusters, and ways to kill."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Of the repository."""
