"""Tables of the methods that conf/method holds, as the command line asks for them."""

from pathlib import Path

from vltune import catalogue, results
from vltune.results.tables import build as tables
from vltune.results.tables.build import *  # noqa: F403

METHODS = catalogue.methods(Path(__file__).parents[1] / "conf")
ALL = catalogue.families(METHODS)[catalogue.ALL]
PAPER = catalogue.families(METHODS)[catalogue.PAPER]
CONTROLS = tuple(name for name, each in METHODS.items() if each.is_control and "apart" not in each.families)


def build(name, root):
    return tables.build(name, root, METHODS)


def listed(name):
    return tables.listed(name, METHODS)


def report(*given, **more):
    return results.report(*given, **more, methods=METHODS)
