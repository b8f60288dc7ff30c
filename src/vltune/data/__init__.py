"""Data sets: a folder each prepares (raw -> Arrow) and reads; `shapes` is the small world generated on the spot."""
