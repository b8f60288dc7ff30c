"""From raw files to Arrow shards."""
