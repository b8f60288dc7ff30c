"""Tuning methods: one file each, which imports nothing of vltune but `sites`, `tuning` and `errors`."""
