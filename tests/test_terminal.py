"""What a command prints reaches who reads it, and ends nothing where nobody does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN, VLTUNE = [sys.executable, "run.py"], [sys.executable, "-m", "vltune"]
SMALL = "dataset.generate.images='{train: 16, val: 4, test: 4}' engine.max_steps=1 engine.batch_size=8"
TABLE = "report matched_params_vilt_mini --results-dir results/matched_params"  # of few records
FULL = Path("/dev/full")  # refuses every byte
NO_UNICODE = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
}


def shell(command, cwd=ROOT, **environment):
    """In a shell that tells the status of the first command of a pipe."""
    asked = f"{command}; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"RUN": f"{sys.executable} {ROOT}/run.py", "VLTUNE": " ".join(VLTUNE), **environment}
    how = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "timeout": 60}
    return subprocess.run(["bash", "-c", asked], cwd=cwd, env=environment, **how)


@pytest.mark.parametrize(
    "command",
    [
        "$RUN --help",
        "$RUN --cfg job",
        f"$VLTUNE {TABLE} --out OUT --format md",
        "$VLTUNE --help",
    ],
)
@pytest.mark.parametrize("reader", ["| head -1", "| true", ">&-", "2>&- | head -1"])
def test_a_reader_that_leaves_is_no_error(command, reader, tmp_path):
    done = shell(f"{command.replace('OUT', str(tmp_path))} {reader}")
    assert done.stderr == ""
    assert done.returncode == 0
    if "report" in command:
        assert len(list(tmp_path.glob("tables/*.md"))) == 1  # the command did its work


@pytest.mark.parametrize("command", ["$RUN --help", "$VLTUNE --version", "$VLTUNE sweep --help"])
def test_a_full_disk_under_what_is_printed_is_one_line(command):
    if not FULL.exists():
        pytest.skip("no /dev/full on this system")
    done = shell(f"{command} > {FULL}")
    assert done.stderr == "error: standard output: No space left on device\n"
    assert done.returncode == 2


@pytest.mark.parametrize("lacking", NO_UNICODE)
def test_a_terminal_without_a_character_gets_another(lacking, tmp_path):
    report = f"$VLTUNE {TABLE} --out {tmp_path} --format md,csv,tex,html"
    plan = f"$VLTUNE sweep plan mini_vqa dataset.data_dir={tmp_path}/world {SMALL}"
    shell(plan)  # which makes its data, and says so
    for command in (report, "$RUN --help", plan, "$VLTUNE compare results/matched_params results/matched_params"):
        done = shell(command, **NO_UNICODE[lacking])
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout
    (page,) = tmp_path.glob("html/*.html")
    assert not page.read_text(encoding="utf-8").isascii()  # files hold what they hold
    done = shell("$RUN weights=/tmp/é.ckpt", **NO_UNICODE[lacking])
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_run_whose_terminal_is_gone_makes_its_record(tmp_path):
    places = f"dataset.data_dir={tmp_path}/world results_dir={tmp_path}/results"
    done = shell(f"($RUN method=lora {SMALL} {places} 2>&1; echo $? > {tmp_path}/status) | true")
    assert done.stderr == ""
    assert (tmp_path / "status").read_text() == "0\n"
    assert len(list(tmp_path.glob("results/records/**/*.parquet"))) == 1


@pytest.mark.parametrize("command", ["$RUN --help", "$VLTUNE report mini"])
def test_a_folder_that_is_gone_is_one_line(command, tmp_path):
    (tmp_path / "gone").mkdir()
    done = shell(f"rmdir {tmp_path}/gone; {command}", cwd=tmp_path / "gone", PYTHONPATH=str(ROOT / "src"))
    assert done.returncode == 2
    assert done.stderr == (
        "error: the folder that this is typed in is not there any more (No such file or directory): cd to another\n"
    )


def test_a_folder_that_nothing_can_be_written_to_is_no_hindrance_to_reading():
    for command in ("$RUN --cfg job", f"$VLTUNE weights pkg://vltune/weights/vilt_mini.safetensors --conf {ROOT}/conf"):
        done = shell(command, cwd="/proc", PYTHONPATH=str(ROOT / "src"))
        assert (done.returncode, done.stderr) == (0, "")


def test_without_a_home_everything_is_as_it_is():
    for command in ("$RUN --cfg job", "$VLTUNE report mini --out /proc/x --format md"):
        done = shell(f"unset HOME; {command}")
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 1
