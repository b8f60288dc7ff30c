"""Full tuning: every parameter of the backbone is trained."""

from vltune.tuning import Method


class Full(Method):
    tunes_backbone = True
