"""The tests behind the tables' marks."""
