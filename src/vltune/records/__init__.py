"""What a run leaves: its record and what lies beside it."""
