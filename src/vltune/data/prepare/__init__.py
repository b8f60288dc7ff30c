"""From official raw files to Arrow files: one file per data set.  Nothing in here imports torch."""
