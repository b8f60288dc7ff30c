"""Imports point downward only, and siblings do not import each other."""

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "vltune"
# From the top down; packages of one layer are siblings.  `weights` and `tasks` name `backbones` only through arguments.
LAYERS = [
    {"cli", "__main__"},
    {"sweep"},
    {"experiment", "overrides"},
    {"assemble", "command_line"},
    {"configuration"},
    {"evaluators", "features"},
    {"engine"},
    {"costs", "results", "loggers"},
    {"records", "stats"},
    {"model"},
    {"tasks", "weights"},
    {"backbones", "methods", "data"},
    {"runs"},
    {"nn", "tuning"},
    {"sites", "metrics"},
    {"images", "streamed"},
    {"atomic", "canonical", "signatures", "terminal", "values"},
    {"errors", "__init__"},
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def imports(file: Path) -> set[str]:
    """Packages of vltune that a file imports, lazily or not."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vltune":
            names |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("vltune.")}
    return {name for name in names if name in LEVEL}


def package(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_package_has_a_layer():
    assert {package(file) for file in SOURCE.rglob("*.py")} <= set(LEVEL)


def test_imports_point_downward():
    wrong = [
        f"{file.relative_to(SOURCE)} imports {other}"
        for file in SOURCE.rglob("*.py")
        for other in imports(file) - {package(file)}
        if LEVEL[other] < LEVEL[package(file)] or (LEVEL[other] == LEVEL[package(file)] and LEVEL[other] > 0)
    ]
    assert not wrong


def test_methods_import_only_sites():
    for file in (SOURCE / "methods").glob("*.py"):
        assert imports(file) <= {"sites", "errors"}, file


def test_results_import_nothing_of_the_rest():
    for file in (SOURCE / "results").rglob("*.py"):
        assert imports(file) <= {"results", "errors", "atomic", "canonical", "signatures", "images", "streamed"}, file


def test_only_run_py_its_overrides_and_the_grid_of_a_sweep_know_hydra():
    knowing = re.compile(r"^\s*(import|from) hydra\b", re.MULTILINE)
    found = {file.relative_to(SOURCE).as_posix() for file in SOURCE.rglob("*.py") if knowing.search(file.read_text())}
    assert found == {"overrides.py", "sweep/grid.py"}


def test_no_branch_on_the_name_of_a_method_or_backbone():
    methods = {file.stem for file in (SOURCE / "methods").glob("*.py")} - {"__init__"}
    backbones = {file.stem for file in (SOURCE / "backbones").glob("*.py")} - {"__init__", "backbone"}
    for file in SOURCE.rglob("*.py"):
        if package(file) == "results":
            continue  # tables order and label their rows by name
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare):
                constants = {
                    n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                }
                names = backbones if package(file) == "methods" else methods | backbones
                assert not constants & names, f"{file}:{node.lineno}"
