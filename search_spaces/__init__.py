"""One module per family: plain functions that a scientist edits."""
