"""`vltune explain`: every setting that a run has is declared, and has its line."""

import re
from pathlib import Path

import pytest
import yaml
from composed import composed
from typer.testing import CliRunner

from vltune.cli import app
from vltune.errors import UserError
from vltune.explain import documented, explanation, settings
from vltune.settings.check import marks
from vltune.settings.groups import declarations
from vltune.settings.kinds import NotDecisive

ROOT = Path(__file__).parents[1]


def choices(group):
    return sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


def paths(tree, above=""):
    for key, value in tree.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from paths(value, f"{above}{key}.")


def needed(method):
    """The task that a method sets something of."""
    own = read("method", method).get("task", {})
    of = next(name for name in ("classification", "subject") if own.keys() <= read("task", name)["task"].keys())
    return [f"task={of}"] if own else []


def read(group, name):
    return yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text())


ALL = [
    *([f"method={name}", *needed(name)] for name in choices("method")),
    *([f"backbone={name}"] for name in choices("backbone")),
    *([f"task={name}"] for name in choices("task")),
    *([f"dataset={name}"] for name in choices("dataset")),
    *([f"logger={name}"] for name in choices("logger")),
    *([f"+match={name}"] for name in choices("match")),
]


@pytest.mark.parametrize("overrides", ALL, ids=" ".join)
def test_every_setting_is_declared_and_has_its_line(overrides):
    config = composed(*overrides)
    known = settings(config)
    assert not [key for key, each in known.items() if len(each.line) < 8 or not each.line.endswith(".")]
    # Names that are free, and what says which object it is.
    free = re.compile(
        r"rates|(method|match\.reference)(\.methods\.\w+)?\.rates\.|backbone\.(pixels|sizes|pipelines)\.|task\.(names|steps|judges)\."
    )
    groups = {"method", "backbone", "task", "dataset", "engine", "logger", "match"}
    undeclared = {key for key in paths(config) if not free.match(key) and not key.endswith("_target_")}
    assert undeclared - known.keys() - groups == {
        key
        for key in undeclared
        if re.fullmatch(r"(backbone\.image_towers|backbone\.models|backbone\.published|method\.methods)\.\w+", key)
    }


HELD = "another value gives the same run where what it holds, or what follows from it, is the same"


@pytest.mark.parametrize(
    ("key", "overrides", "words"),
    [
        ("engine.clip", [], ["Largest norm", "takes    a number above 0, or null for no clipping", "here     null"]),
        ("engine.workers", [], ["another value gives the same run"]),
        ("engine.evaluate", [], ["decides which run it is, but not its order"]),
        ("dataset.decode", [], ["one of exact, fast", "every run before there was a choice had exact"]),
        ("method.rank", ["method=lora"], ["low-rank", "a whole number", "here     4", "decides which run it is"]),
        ("method.always_trained", [], ["one of paper, head_only", "here     paper"]),
        ("method.scale", ["method=scaled_pa"], ["Of what the adapter adds."]),
        ("method.methods.prefix.prompts", ["method=mam"], ["How many prompts", "decides which run it is"]),
        ("backbone.protocol", [], ["What costs are counted on.", "backbone.protocol.text_len: Tokens"]),
        ("backbone.tokenizer.vocabulary", [], ["another value gives the same run"]),
        *((key, [], [HELD]) for key in ("weights", "dataset.data_dir", "backbone.tokenizer.vocabulary")),
        *((key, [], [HELD]) for key in ("dataset.generate.seed", "dataset.generate.images", "backbone.sizes")),
        *((key, ["+match=params"], [HELD]) for key in ("match.budget", "match.reference.rank")),
        ("engine.workers", [], ["another value gives the same run\n"]),
        ("task.false_captions", ["task=retrieval"], ["a whole number from 1 to 1000000"]),
        ("logger.tags", ["logger=wandb"], ["a list, each a word", "another value gives the same run"]),
    ],
)
def test_a_setting_is_explained(key, overrides, words):
    text = explanation(key, composed(*overrides)) + "\n"
    assert not [each for each in words if each not in text], text


def test_a_group_shows_a_line_of_each_of_its_settings():
    lines = explanation("engine", composed()).splitlines()
    assert len(lines) == len(composed()["engine"])
    assert lines[0].startswith("engine.lr: ")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("engine.lrr", "engine.lrr: there is no such setting; did you mean engine.lr "),
        ("rank", "rank: there is no such setting; did you mean method.rank?"),
        ("nonsense", "nonsense: there is no such setting; `python run.py --cfg job` shows those that there are"),
    ],
)
def test_an_unknown_setting_is_one_line(key, message):
    with pytest.raises(UserError) as error:
        explanation(key, composed())
    assert str(error.value).startswith(message)
    assert str(error.value).isprintable()


def test_a_docstring_says_what_an_argument_is():
    class Made:
        """Makes things of (N, width).

        width: of a token, 8 or more.  More on it.  depth: of both maps; the
        rest: nothing.  mean, std: what is said of two is said of neither.
        """

    assert documented(Made, ("width", "depth", "mean", "std")) == {
        "width": "Of a token, 8 or more.",
        "depth": "Of both maps; the rest: nothing.",
    }


def test_how_a_method_is_presented_decides_no_run():
    known = declarations("method")
    assert {key for key in known if marks(known[key], NotDecisive)} == {"label", "order", "families", "colour", "rates"}


def test_the_command_explains_and_refuses(monkeypatch):
    monkeypatch.chdir(ROOT)
    shown = CliRunner().invoke(app, ["explain", "method.rank", "method=lora"])
    assert shown.exit_code == 0
    assert shown.output.startswith("method.rank: ")
    assert CliRunner().invoke(app, ["explain", "method.rnk"]).exit_code == 2
