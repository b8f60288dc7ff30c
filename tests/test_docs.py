"""What the documents say is so: the example method works, and their commands are real."""

import re
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from hydra import compose

from vltune.assemble.factory import check_values
from vltune.command_line import QUESTIONS, check_choices, of_sweep, resolve
from vltune.engine.precision import settle
from vltune.errors import UserError
from vltune.experiment.readiness import built
from vltune.model import Model
from vltune.overrides import conf
from vltune.results.tables.build import groups
from vltune.sites import ROLES
from vltune.sweep.grid import expand
from vltune.tasks.vqa import VQA

ROOT = Path(__file__).parents[1]


def blocks(document, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def test_the_example_of_adding_a_method():
    source = blocks("docs/adding-a-method.md", "python")[0]
    names = {}
    exec(compile(source, "shift.py", "exec"), names)
    spec = yaml.safe_load(blocks("docs/adding-a-method.md", "yaml")[0])
    assert spec["_target_"].endswith(".Shift")
    backbone = tiny.vilt()
    model = Model(backbone, VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), names["Shift"](spec["roles"]))
    assert sum(p.numel() for p in model.method_parameters) == 2 * 2 * 32
    assert {site.role for site in model.tuning.sites} == set(spec["roles"])
    with torch.no_grad():
        before = model.eval()(tiny.batch())
        for site in model.tuning.sites:
            site.delta.shift.add_(2)
        assert not torch.equal(model(tiny.batch()), before)


def test_the_page_of_methods_has_every_role_and_no_other():
    rows = re.findall(r"^\| (`[a-z_` ]+`) \| ", (ROOT / "docs/adding-a-method.md").read_text(), flags=re.MULTILINE)
    assert sorted(role.strip("`") for row in rows for role in row.split()) == sorted(ROLES)


def test_the_page_of_results_has_every_key_of_a_definition_of_tables():
    table = (ROOT / "docs/results.md").read_text().partition("| key | what it says |\n|---|---|\n")[2]
    table = table.partition("\n\n")[0]
    said = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert {key for group in groups().values() for key in group} | {"aside"} == said


def commands():
    lines = [line for block in blocks("README.md", "(?:sh|bash)") for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def test_the_readme_has_its_two_commands():
    assert "make demo" in commands()
    assert "make test" in commands()


def typed(page):
    """The arguments of every `python run.py` that a page tells a person to type, in a block of code or in a sentence."""
    text = page.read_text().replace("\\\n", " ")
    found = re.findall(r"^ *(python run\.py.*)$", text, flags=re.MULTILINE)
    found += [" ".join(each.split()) for each in re.findall(r"`(python run\.py [^`]*)`", text)]
    return [shlex.split(line, comments=True)[2:] for line in found]


def is_to_be_filled_in(page, arguments):
    """Whether a value stands for another: it is in capitals (NAME, FILE), or a choice whose file the page has one write."""
    given = [argument.partition("=")[::2] for argument in arguments]
    files = [f"conf/{group}/{choice}.yaml" for group, choice in given]
    own = [file for file in files if file in page.read_text() and not (ROOT / file).exists()]
    return bool(own) or any(re.fullmatch("[A-Z]+", value) for _, value in given)


def run_commands():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = {
        shlex.join(arguments): arguments
        for page in pages
        for arguments in typed(page)
        if not is_to_be_filled_in(page, arguments) and not QUESTIONS & {*arguments}
    }
    return [pytest.param(arguments, id=name) for name, arguments in found.items()]


@pytest.mark.parametrize("arguments", run_commands())
def test_run_commands_pass_the_look_that_a_start_takes(arguments):
    """Of a sweep the first run; where a file of one's own tells the sizes, as far as that file, which is not here."""
    arguments = [re.sub("=~/", f"={Path.home()}/", argument) for argument in arguments]  # as bash hands it over
    if (of_runs := of_sweep(arguments)) is not None:
        arguments = expand(ROOT, of_runs).jobs[0]
    check_choices(ROOT / "conf", arguments)
    with conf(ROOT):
        resolved = resolve(compose("run", arguments))
    check_values(resolved)
    of_own_file = resolved["backbone"].get("model") == "checkpoint"
    with pytest.raises(UserError, match="no such file") if of_own_file else nullcontext():
        built(settle(resolved), arguments)


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_make_targets_exist(command):
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("vltune ")])
def test_vltune_commands_exist(command):
    from typer.main import get_command

    from vltune.cli import app

    assert command.split()[1] in get_command(app).commands
