"""Checkpoint families: one literal key map each, and reading files without running what they contain."""
