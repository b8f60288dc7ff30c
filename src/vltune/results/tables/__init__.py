"""Tables, built from records."""
