"""What `vltune check` looks for."""
