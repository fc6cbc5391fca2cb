"""Functions from block to block."""
