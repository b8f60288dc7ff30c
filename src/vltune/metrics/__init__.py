"""Metrics: pure functions of answers and scores, importing nothing of the rest but `errors`."""
