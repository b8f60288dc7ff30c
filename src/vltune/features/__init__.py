"""What frozen towers make of images and texts, kept on disk."""
