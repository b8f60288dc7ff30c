"""Every command and every mode with what no path can be, and with paths of another kind than is asked for."""

import io
import json
import os
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import forked
import pytest
from hydra import compose, initialize_config_dir
from typer.testing import CliRunner

from vltune import experiment
from vltune.cli import app
from vltune.command_line import check_choices, leave
from vltune.overrides import explained

ROOT = Path(__file__).parents[1]
SECONDS = 30  # of a machine that does other work too
PLACES = {
    "empty": "",
    "unknown home": "~nobody-of-that-name/x",
    "file": "HERE/file",
    "below a file": "HERE/file/below",
    "folder": "HERE/folder",
    "absent": "HERE/absent",
    "dangling": "HERE/dangling",
    "loop": "HERE/loop",
    "long": "HERE/" + "x" * 300,
    "proc": "/proc/x",
    "deep in proc": "/proc/x/y/z",
    "bytes": "HERE/bytes",
    "pipe": "HERE/pipe",
    "here": ".",
}
VALUES = {"null": "null", "number": "5", "bool": "true", "list": "[a]", "dict": "{a: 1}", "nul": '"a\0b"'}
NO_PATH = ("empty", "unknown home", "dangling", "loop", "long", "pipe", *VALUES)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """One of each kind of place."""
    (tmp_path / "file").write_text("not what is asked for")
    (tmp_path / "bytes").write_bytes(bytes(range(256)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.json").write_text("[]")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "results").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A committed record, with its predictions, and by itself."""
    folder = tmp_path_factory.mktemp("records") / "records" / "vilt_mini" / "vqa-shapes"
    folder.mkdir(parents=True)
    for file in sorted((ROOT / "results/records/vilt_mini/vqa-shapes").glob("apt-*-seed0.*")):
        shutil.copy(file, folder)
    return next(folder.glob("*.json"))


# What a place is put in, as PLACE; RECORD is a record, RESULTS the folder of results that it is in.
COMMANDS = [
    "prepare vqav2 --raw PLACE --out out",
    "prepare vqav2 --raw HERE/folder --out PLACE",
    "check PLACE",
    "report mini --results-dir PLACE --out out --format md",
    "report mini --results-dir RESULTS --out PLACE --format md,html",
    "compare PLACE RESULTS",
    "compare RESULTS PLACE",
    "compare RESULTS RESULTS --out PLACE --format md",
    "compare RESULTS RESULTS --out PLACE",
    "merge PLACE --into out",
    "merge RESULTS --into PLACE",
    "submission PLACE",
    "submission RECORD --out PLACE",
    "submission RECORD --questions PLACE",
    "score PLACE --annotations HERE/file",
    "score RECORD --annotations PLACE",
    "wandb-sync --results-dir PLACE --dry-run",
    "weights PLACE",
    "weights pkg://vltune/weights/vilt_mini.safetensors --conf PLACE",
    *(f"sweep {command} mini --project PLACE" for command in ("plan", "status", "retry", "submit", "cancel")),
    "sweep choose PLACE",
    "sweep choose RESULTS --out PLACE",
]


def filled(text, here, record, place):
    """The words of a command; a place's may be empty."""
    results = record.parents[3]
    known = {"PLACE": place, "RECORD": str(record), "RESULTS": str(results)}
    return [known.get(word, word).replace("HERE", str(here)) for word in text.split()]


def nothing_but(here, *kept):
    """No file was written beside what there is and what was asked for."""
    known = {"file", "bytes", "folder", "dangling", "loop", "pipe", "results", "work", *kept}
    return {path.name for path in here.iterdir()} <= known


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_ends_soon_and_in_one_line(command, here, record):
    for kind, place in PLACES.items():
        began = time.monotonic()
        done = CliRunner().invoke(app, filled(command, here, record, place))
        told = f"{command}, {kind}: {done.stderr or done.exception!r}"
        assert done.exception is None or isinstance(done.exception, SystemExit), told
        assert time.monotonic() - began < SECONDS, told
        assert done.exit_code in (0, 1, 2), told
        if kind in NO_PATH:
            assert done.exit_code == 2, told
        if done.exit_code == 2:
            (line,) = done.stderr.splitlines()
            assert line.startswith("error: "), told
            assert line.isprintable(), told
        if done.exit_code == 2 and "absent" not in kind:
            assert nothing_but(here, "absent"), told


def launched(arguments):
    """As `python run.py`, in this process -> exit status, stdout, stderr."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            with explained(ROOT, arguments):
                check_choices(ROOT / "conf", arguments)
                with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
                    composed = compose("run", list(arguments))
            experiment.run(composed, list(arguments))
        except SystemExit as end:
            return end.code, out.getvalue(), errors.getvalue()
        except Exception as error:
            with pytest.raises(SystemExit) as end:
                leave(error)
            return end.value.code, out.getvalue(), errors.getvalue()
    return 0, out.getvalue(), errors.getvalue()


SMALL = ["engine.max_steps=1", "engine.batch_size=8", "dataset.generate.images={train: 24, val: 8, test: 8}"]
MODES = {
    "train": ["method=classifier_only", *SMALL],
    "pretrain": ["mode=pretrain", "engine.max_steps=1", "engine.workers=0", "engine.evaluate=[]"],
    "cost": ["mode=cost"],
    "eval": ["mode=eval"],
}
# Of each setting: in which modes, and what of the places may be (a file that holds something else: see tests/weights).
FILES = ("file", "bytes", "folder", "here")
SETTINGS = {
    "results_dir": ("train pretrain cost", ("folder", "absent", "here")),
    "dataset.data_dir": ("train", ("folder", "absent", "here")),
    "dataset.subfolder": ("train", ("empty",)),
    "engine.features_dir": ("train", ("folder", "absent", "here", "proc")),  # one stream has no frozen towers
    "weights": ("train pretrain", ("null", *FILES)),
    "backbone.weights": ("train", ("null", *FILES)),
    "backbone.tokenizer.vocabulary": ("train eval", ()),
    "+backbone.tower_weights.text": ("train", ("null", *FILES)),
    "from": ("eval train", ("null",)),
}
TRIED = (
    "empty",
    "unknown home",
    "file",
    "folder",
    "absent",
    "dangling",
    "loop",
    "long",
    "proc",
    "bytes",
    "pipe",
    "here",
)


@pytest.mark.parametrize(
    ("setting", "mode"), [(setting, mode) for setting, (modes, _) in SETTINGS.items() for mode in modes.split()]
)
def test_a_run_ends_soon_and_in_one_line_that_names_the_setting(setting, mode, here, record):
    results = here / "results"
    places = {"results_dir": results, "dataset.data_dir": here / "world", "engine.features_dir": here / "features"}
    places = {"from": record} if mode == "eval" else places
    given = [f"{name}={value}" for name, value in places.items() if name != setting]
    for kind, place in ({kind: PLACES[kind] for kind in TRIED} | VALUES).items():
        if kind in SETTINGS[setting][1]:
            continue
        typed = f'{setting}="{place}"' if kind == "unknown home" else f"{setting}={place.replace('HERE', str(here))}"
        began = time.monotonic()
        status, _, errors = launched([*MODES[mode], *given, typed])
        told = f"{mode}, {setting}, {kind}: {status} {errors}"
        assert time.monotonic() - began < SECONDS, told
        assert "Traceback" not in errors, told
        assert status == 2, told
        assert len(errors.splitlines()) == 1, told
        if kind in NO_PATH:
            assert setting.lstrip("+") in errors, told
        assert not list(results.iterdir()), told


def test_the_same_of_processes(tmp_path):
    """What a shell's unset variable, and a file system that makes nothing, come to."""
    for command in (
        ["run.py", "mode=cost", "results_dir="],
        ["run.py", "mode=cost", "results_dir=/proc/x"],
        ["run.py", "-m", "mode=cost", "seed=0,1", "results_dir=/proc/x"],
        ["-m", "vltune", "report", "mini", "--results-dir", ""],
        ["-m", "vltune", "report", "mini", "--results-dir="],
        ["-m", "vltune", "merge", "results", "--into", "/proc/x"],
    ):
        done = forked.run(*command, timeout=60)
        assert done.returncode == 2, (command, done.stderr)
        assert len(done.stderr.splitlines()) == 1, (command, done.stderr)


def test_home_is_filled_in_for_every_path_of_a_command(here, record, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    shutil.copytree(record.parents[2], here / "results" / "records")
    for command in ("report mini --results-dir ~/results --out ~/out --format csv", "merge ~/results --into ~/merged"):
        assert CliRunner().invoke(app, command.split()).exit_code == 0
    assert list(here.glob("out/tables/*.csv"))
    assert list(here.glob("merged/records/vilt_mini/vqa-shapes/*.json"))
    assert not list((here / "work").iterdir())


def test_a_record_is_scored_again_with_what_may_be_given_beside_it(here, record):
    for typed, why in {
        "method=apt": "the record says that; leave it out",
        "logger=wandb": "the record says that; leave it out",
        "seed=1": "the record says that; leave it out",
        "results_dir=x": "the record says that; leave it out",
        "engine.lr=1": "the record says that; leave it out",
        "+dataset.folds=2": "the record says that; leave it out",
        "~dataset.answers": "the record says that; leave it out",
        "engine.evaluate=[train]": "must be a list of val, test",
        "engine.workers=x": "must be a whole number",
    }.items():
        status, _, errors = launched(["mode=eval", f"from={record}", typed])
        assert (status, len(errors.splitlines())) == (2, 1), errors
        assert why in errors
        assert typed.lstrip("+~").partition("=")[0] in errors


def damaged(record, here, **changes):
    content = json.loads(record.read_text()) | changes
    (here / "changed.json").write_text(json.dumps(content))
    return here / "changed.json"


def test_a_record_that_has_no_tuned_model_is_told(here, record):
    config = json.loads(record.read_text())["config"]
    for changes, why in (
        ({"schema": 99}, "field 'schema' is 99"),
        ({"status": "interrupted"}, "the run is interrupted; only a finished one has a tuned model"),
        (
            {"config": config | {"mode": "pretrain"}},
            "is of mode=pretrain, which leaves a backbone: tune that, weights=",
        ),
        ({"config": config | {"mode": "cost"}}, "is of mode=cost, which tunes nothing"),
        ({"config": {}}, "field 'config': engine: is missing; a run needs it"),
        ({"config": config | {"dataset": "x"}}, "field 'config.dataset': "),
        (
            {"config": config | {"engine": config["engine"] | {"lr": "x"}}},
            "field 'config.engine.lr': ",
        ),
        ({"metrics": {"val": {"vqa_score": None}, "test": None}}, "field 'metrics.val.vqa_score'"),
    ):
        status, _, errors = launched(["mode=eval", f"from={damaged(record, here, **changes)}"])
        assert (status, len(errors.splitlines())) == (2, 1), errors
        assert why in errors
    status, _, errors = launched(["mode=eval"])
    assert (status, errors) == (2, "error: mode=eval: say which record, from=results/records/.../NAME.json\n")
