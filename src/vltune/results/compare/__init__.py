"""Two folders of records, run by run."""
