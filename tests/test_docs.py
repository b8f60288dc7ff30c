"""What the documents say is so: the example method works, and the README's commands are real."""

import re
import shlex
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from vltune import catalogue
from vltune.model import Model
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


def commands():
    lines = [line for block in blocks("README.md", "(?:sh|bash)") for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def test_the_readme_has_its_two_commands():
    assert "make demo" in commands()
    assert "make test" in commands()


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("python run.py")])
def test_run_commands_compose(command):
    from hydra import compose, initialize_config_dir

    arguments = [a for a in shlex.split(command)[2:] if a not in ("-m", "--help") and not a.startswith("from=")]
    single = [a.partition("=")[0] + "=" + a.partition("=")[2].split(",")[0] for a in arguments]
    families = catalogue.families(catalogue.methods(ROOT / "conf"))
    of_family = {f"method={family}": f"method={members[0]}" for family, members in families.items()}
    single = [of_family.get(argument, argument) for argument in single]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("run", single).method


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_make_targets_exist(command):
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("vltune ")])
def test_vltune_commands_exist(command):
    from typer.main import get_command

    from vltune.cli import app

    assert command.split()[1] in get_command(app).commands
