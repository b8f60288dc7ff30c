"""What a data set is: one folder beside this file, found by being here.

Its `__init__.py` says which of its modules holds what, as `DATA_SET = DataSet(...)`.  A module is imported by who needs it,
so that preparing and checking pay for no torch.  docs/adding-a-dataset.md has an example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from vltune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vltune.data.check.kind import Kind
    from vltune.data.examples import Examples

HERE = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class DataSet:
    """Each part as `MODULE.NAME` inside the folder.

    reader: the `Reader` (data/reader.py) from which runs get examples.
    prepare: {name for `vltune prepare`: a function (raw, out, *, max_bad, progress, readers) -> {what: how much}}; one that
        takes `min_answer_count`, `noun` or `live` too gets it from the command line, and one that takes `name` the name.
    kinds: {how the names of its Arrow files begin: the `Kind` (data/check/kind.py) that `vltune check` expects there}.
    examples: the `Examples` (data/examples.py) that pages and dashboards show; without them nothing is shown.
    """

    reader: str
    prepare: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    examples: str | None = None


@cache
def data_sets() -> dict[str, DataSet]:
    """{folder: what it says of itself}"""
    package = import_module(HERE)
    folders = [found.name for found in iter_modules(package.__path__) if found.ispkg]
    said = {name: getattr(import_module(f"{HERE}.{name}"), "DATA_SET", None) for name in folders}
    return {name: each for name, each in said.items() if each is not None}


def part(folder: str, where: str) -> Any:
    module, _, name = where.rpartition(".")
    return getattr(import_module(f"{HERE}.{folder}.{module}"), name)


def folder_of(reader: str) -> str:
    """The folder that `task.reader` names.  Records from before data sets had names hold the path of the class in it.

    UserError where there is none."""
    name = reader.removeprefix(f"{HERE}.").partition(".")[0]
    if name not in data_sets():
        raise UserError(f"{reader}: no data set; there are {', '.join(data_sets())}")
    return name


def reader_of(reader: str) -> str:
    """The dotted name of the class that `task.reader` means.  UserError where it means none."""
    folder = folder_of(reader)
    return f"{HERE}.{folder}.{data_sets()[folder].reader}"


def preparations() -> dict[str, tuple[str, str]]:
    """{name for `vltune prepare`: folder, and the function in it}"""
    return {name: (folder, where) for folder, each in data_sets().items() for name, where in each.prepare.items()}


def preparation(name: str) -> Callable[..., dict[str, int]]:
    function = part(*preparations()[name])
    return partial(function, name=name) if "name" in signature(function).parameters else function


@cache
def kinds() -> dict[str, Kind]:
    """{how the names of Arrow files begin: what `vltune check` looks for in them}"""
    return {begin: part(folder, where) for folder, each in data_sets().items() for begin, where in each.kinds.items()}


def kind_of_name(file: str) -> str | None:
    """Of an Arrow file: the longest way to begin that fits; None for a data set's that is not here."""
    return max((begin for begin in kinds() if file.startswith(f"{begin}_")), key=len, default=None)


def is_of(file: str, stem: str) -> bool:
    """Whether an Arrow file's name begins with the stem, and with no longer one of another data set."""
    begin = f"{stem}_"
    return file.startswith(begin) and kind_of_name(file) == kind_of_name(begin)


def open_examples(reader: str, folder: Path, splits: Sequence[str]) -> Examples:
    """What predictions for these splits of a data folder are about.

    UserError where the folder does not hold them, and for a data set that shows none."""
    name = folder_of(reader)
    if (where := data_sets()[name].examples) is None:
        raise UserError(f"{name}: has no examples to look at")
    return part(name, where)(Path(folder), splits)
