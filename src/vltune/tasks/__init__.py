"""Tasks: one file each, with head, loss, metric and predictions."""
