"""A run among others: its identity, its lock, its signals, its progress."""
