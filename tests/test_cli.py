import subprocess
import sys
from types import ModuleType

import pytest
from typer.testing import CliRunner

from vltune import __version__
from vltune.cli import app
from vltune.errors import BadExampleError, UserError


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def vqav2(monkeypatch):
    """A stand-in for vltune.data.vqav2.prepare; `calls` is what it was asked for, `raises` what it answers with."""
    module = ModuleType("vltune.data.vqav2.prepare")
    module.calls, module.raises = [], None

    def prepare(raw, out, min_answer_count=9, **options):
        module.calls.append((raw.name, out.name, min_answer_count, options))
        if module.raises:
            raise module.raises
        return {"train images": 3, "answers": 2}

    module.prepare = prepare
    monkeypatch.setitem(sys.modules, "vltune.data.vqav2.prepare", module)
    return module


def test_help_teaches_by_example():
    for arguments, example in [
        (["--help"], "vltune prepare vqav2 --raw"),
        (["report", "--help"], "vltune report mini\n"),
        (["pack", "--help"], "vltune pack ~/shared/results"),
        (["prepare", "--help"], "--max-bad 3\n"),
    ]:
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert example in result.output


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from vltune.cli import app; app(standalone_mode=False, args=sys.argv[1:]);"
        "sys.exit(str({'torch', 'matplotlib', 'pyarrow', 'hydra', 'jsonschema_rs', 'numpy'} & sys.modules.keys()))"
    )
    for argument in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True)
        assert done.stderr.strip() == "set()"


def test_version():
    assert invoke("--version").output == f"vltune {__version__}\n"


def test_prepare_prints_the_counts(vqav2):
    result = invoke("prepare", "vqav2", "--raw", "r", "--out", "o", "--min-answer-count", 3, "--max-bad", 1)
    assert result.exit_code == 0
    assert vqav2.calls == [("r", "o", 3, {"max_bad": 1, "readers": None})]
    assert result.stdout.splitlines() == ["train images: 3", "answers: 2"]
    invoke("prepare", "vqav2", "--raw", "r", "--out", "o")
    assert vqav2.calls[1] == ("r", "o", 9, {"max_bad": 0, "readers": None})


@pytest.mark.parametrize(
    ("dataset", "missing"),
    [
        ("nlvr2", "data/train.json"),
        ("f30k", "dataset_flickr30k.json"),
        ("coco", "dataset_coco.json"),
        ("snli_ve", "snli_ve_train.jsonl"),
    ],
)
def test_every_data_set_is_prepared_by_its_own_module(tmp_path, dataset, missing):
    result = invoke("prepare", dataset, "--raw", tmp_path, "--out", tmp_path / "out", "--max-bad", 2)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path}: lacks {missing}, ")


def test_an_option_of_another_data_set_is_refused():
    result = invoke("prepare", "coco", "--raw", "r", "--out", "o", "--min-answer-count", 3)
    assert result.exit_code == 2
    assert result.stderr == "error: --min-answer-count=3: coco has no such option; leave it out\n"


@pytest.mark.parametrize("option", ["--class=dog", "--live", "--no-live"])
def test_an_option_of_pictures_of_a_subject_is_refused_elsewhere(option):
    result = invoke("prepare", "coco", "--raw", "r", "--out", "o", option)
    assert result.stderr == f"error: {option}: coco has no such option; leave it out\n"


def test_unknown_names_list_the_right_ones(tmp_path):
    result = invoke("prepare", "gqa", "--raw", "r", "--out", "o")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: data set 'gqa' is not known: use one of f30k, coco, imagenet, caltech101, ")
    assert result.stderr.endswith(", folder, emoji, emoji_captions, nlvr2, snli_ve, dreambooth, vqav2\n")
    result = invoke("report", "maxi", "--results-dir", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: table 'maxi' is not known: use one of ")
    assert "mini" in result.stderr


@pytest.mark.parametrize(("error", "status"), [(UserError, 2), (BadExampleError, 1)])
def test_errors_a_user_can_act_on_are_one_line(vqav2, error, status):
    vqav2.raises = error("train2014/1.jpg: cannot be read")
    result = invoke("prepare", "vqav2", "--raw", "r", "--out", "o")
    assert result.exit_code == status
    assert result.stderr == "error: train2014/1.jpg: cannot be read\n"


def test_an_error_of_ours_keeps_its_traceback(vqav2):
    vqav2.raises = ZeroDivisionError()
    assert isinstance(invoke("prepare", "vqav2", "--raw", "r", "--out", "o").exception, ZeroDivisionError)


def test_report_prints_and_writes(tmp_path):
    out = tmp_path / "out"
    result = invoke("report", "mini", "--results-dir", tmp_path, "--out", out, "--format", "md, csv")
    assert result.exit_code == 0
    assert "classifier_only" in result.stdout
    written = [f"{table}.{form}" for table in ("meter_mini", "vilt_mini") for form in ("csv", "md")]
    assert sorted(path.name for path in out.rglob("*.*")) == written
    assert invoke("report", "mini", "--results-dir", tmp_path).exit_code == 0
    assert (tmp_path / "tables" / "vilt_mini.tex").exists()
    assert (tmp_path / "figures" / "meter_mini.png").exists()


def test_a_report_in_no_format_is_refused(tmp_path):
    for given in (",", "md,", ""):
        result = invoke("report", "mini", "--results-dir", tmp_path, "--format", given)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "format" in result.stderr
    assert not list(tmp_path.iterdir())


def test_report_into_a_file_fails_in_one_line(tmp_path):
    (tmp_path / "out").write_text("a file")
    result = invoke("report", "mini", "--results-dir", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path}/out/tables: ")
    assert result.stderr.count("\n") == 1
