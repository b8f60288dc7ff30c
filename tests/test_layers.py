"""Imports point downward only, and siblings do not import each other."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "vltune"
# From the top down; packages of one layer are siblings.  `weights` and `tasks` name `backbones` only through arguments.
LAYERS = [
    {"cli", "__main__"},
    {"sweep"},
    {"experiment", "overrides"},
    {"sharing"},
    {"assemble", "command_line", "explain"},
    {"configuration"},
    {"evaluators", "features"},
    {"engine"},
    {"costs", "results", "loggers"},
    {"records"},
    {"stats"},
    {"model"},
    {"tasks", "weights"},
    {"judges"},
    {"backbones", "methods", "data"},
    {"runs"},
    {"nn", "tuning"},
    {"sites", "metrics", "pictures"},
    {"images", "streamed", "settings", "layout"},
    {"atomic", "batch", "canonical", "catalogue", "signatures", "terminal", "values"},
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


def test_the_table_of_the_documents_is_of_these_layers():
    page = (SOURCE.parents[1] / "docs" / "architecture.md").read_text()
    table = page.partition("|---|---|\n")[2].partition("\n\n")[0]
    rows = [{*re.findall(r"`(\w+)(?:\.py|/)`", line.split("|")[1])} for line in table.splitlines()]
    assert rows == [layer - {"__main__", "__init__"} for layer in LAYERS]


def test_imports_point_downward():
    wrong = [
        f"{file.relative_to(SOURCE)} imports {other}"
        for file in SOURCE.rglob("*.py")
        for other in imports(file) - {package(file)}
        if LEVEL[other] < LEVEL[package(file)] or (LEVEL[other] == LEVEL[package(file)] and LEVEL[other] > 0)
    ]
    assert not wrong


def test_no_name_of_a_package_is_a_module_of_it():
    """Whoever imports the module would put it in the name's place."""
    wrong = []
    for file in SOURCE.rglob("__init__.py"):
        own = ".".join(("vltune", *file.parent.relative_to(SOURCE).parts))
        modules = {each.stem for each in file.parent.iterdir() if each.suffix in (".py", "")}
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom | ast.Import) and getattr(node, "module", own) != own:
                names = {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = {node.name}
            elif isinstance(node, ast.Assign):
                names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            else:
                continue
            wrong += [f"{file.relative_to(SOURCE)}: {name}" for name in names & modules]
    assert not wrong


def test_methods_import_only_the_contract():
    for file in (SOURCE / "methods").glob("*.py"):
        assert imports(file) <= {"sites", "tuning", "errors"}, file


def test_results_import_records_and_statistics_alone():
    for file in (SOURCE / "results").rglob("*.py"):
        below = {
            "records",
            "stats",
            "metrics",
            "errors",
            "atomic",
            "canonical",
            "catalogue",
            "signatures",
            "images",
            "streamed",
        }
        assert imports(file) <= {"results"} | below, file


def test_only_run_py_its_overrides_and_what_composes_a_sweep_know_hydra():
    knowing = re.compile(r"^\s*(import|from) hydra\b", re.MULTILINE)
    found = {file.relative_to(SOURCE).as_posix() for file in SOURCE.rglob("*.py") if knowing.search(file.read_text())}
    assert found == {"overrides.py", "sweep/compose.py", "sweep/grid.py", "sweep/hydra_files.py"}


def test_no_branch_on_the_name_of_a_method_or_backbone():
    methods = {file.stem for file in (SOURCE / "methods").glob("*.py")} - {"__init__"}
    backbones = {file.stem for file in (SOURCE / "backbones").glob("*.py")} - {"__init__", "backbone"}
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare):
                constants = {
                    n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                }
                names = backbones if package(file) == "methods" else methods | backbones
                assert not constants & names, f"{file}:{node.lineno}"


def names() -> set[str]:
    """Of methods, tasks, data sets and metrics, but for what every message may say."""
    project = SOURCE.parents[1]
    found = {file.stem for group in ("method", "task", "dataset") for file in (project / "conf" / group).glob("*.yaml")}
    for file in (SOURCE / "tasks").glob("*.py"):
        module = import_module(f"vltune.tasks.{file.stem}")
        found |= {metric.name for each in vars(module).values() for metric in getattr(each, "metrics", ())}
    return found - {"folder"}


def test_what_reads_scores_names_no_method_task_data_set_or_metric():
    named = names()
    assert {"apt", "vqa", "f30k", "r1", "consistency"} <= named
    for file in (file for room in ("results", "records", "stats", "loggers") for file in (SOURCE / room).rglob("*.py")):
        tree = ast.parse(file.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                assert not named & {*re.split(r"\W", node.value)}, f"{file}:{node.lineno} {node.value!r}"


def modules() -> dict[str, Path]:
    """{dotted name: file}"""
    names = {file: ["vltune", *file.relative_to(SOURCE).with_suffix("").parts] for file in SOURCE.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): file for file, parts in names.items()}


def imported(tree: ast.AST, known: set[str]) -> set[str]:
    """Modules of vltune that a module needs in order to run, lazily or not: not those that only its annotations name."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & known) or ({node.module} & known)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        found |= imported(node, known)
    return found


def test_no_imports_go_in_a_circle():
    files = modules()
    needed = {name: imported(ast.parse(file.read_text()), {*files}) - {name} for name, file in files.items()}
    try:
        TopologicalSorter(needed).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_class_has_the_name_of_another():
    counts = Counter(
        node.name
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in counts.items() if count > 1]


def test_no_test_file_has_the_name_of_another():
    """pytest imports each by its bare name: of two of one name it collects only the first."""
    counts = Counter(file.name for file in Path(__file__).parent.rglob("*.py") if file.name != "conftest.py")
    assert not [name for name, count in counts.items() if count > 1]


def test_no_module_is_long():
    assert not [file for file in SOURCE.rglob("*.py") if len(file.read_text().splitlines()) > 400]


def functions(*packages: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for file in (file for each in packages for file in (SOURCE / each).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{file.relative_to(SOURCE)}: {node.name}", node


def test_no_function_of_a_run_takes_more_than_six_arguments():
    many = [
        name
        for name, node in functions("engine", "evaluators", "experiment", "features", "runs")
        if len({arg.arg for arg in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]} - {"self", "cls"})
        > 6
    ]
    assert not many


def test_no_function_is_longer_than_sixty_lines():
    packages = [each.name for each in SOURCE.iterdir() if each.is_dir()]
    assert not [name for name, node in functions(*packages) if node.end_lineno - node.lineno >= 60]
