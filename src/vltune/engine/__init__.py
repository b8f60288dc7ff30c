"""Training and evaluation: one readable loop that every method and task shares."""
