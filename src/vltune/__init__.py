"""vltune: every tuning method on every vision-language backbone and task, under one protocol."""

__version__ = "0.1.0"
