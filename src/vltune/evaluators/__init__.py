"""How the predictions of a split are made."""
