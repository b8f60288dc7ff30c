"""Tuned models that leave the place where they were trained: as one file, as a PEFT folder, as a whole model."""
