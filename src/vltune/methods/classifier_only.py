"""Classifier only: the method adds nothing; what the paper trains with every method is all that is trained.

Those parts are the task's head and the backbone's pooler, token types and class token.
"""

from vltune.tuning import Method


class ClassifierOnly(Method):
    pass
