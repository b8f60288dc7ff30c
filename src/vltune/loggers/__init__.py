"""Mirrors of a run for people to watch.  The record is the truth: a logger may fail, and the run goes on."""
