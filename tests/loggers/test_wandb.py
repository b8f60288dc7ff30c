"""Reads back what W&B really writes offline; no test here reaches the network."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import wandb
from fabricated import fabricate
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from wandb_files import read_back, table

from vltune.data.examples import Asked, Shown
from vltune.errors import UserError
from vltune.loggers.none import NoLogger
from vltune.loggers.wandb import WandbLogger
from vltune.records import record as records

CONFIG = {"engine": {"lr": 1e-3, "epochs": 2}, "tags": ["a", "b"], "checkpoint": None}
IDENTITY = {"backbone": "vilt_mini", "method": "apt", "task": "vqa", "dataset": "shapes", "seed": 0, "hash": "0123abcd"}
SHIPPED = Path(__file__).parents[2] / "conf" / "logger"
OFF = "off for this run; vltune wandb-sync sends its record"


def made(**fields) -> dict:
    history = [{"step": step, "train/loss": 1 / step} for step in (1, 2, 3)]
    return fabricate(**{**IDENTITY, "config": CONFIG, "history": history, **fields})


def logged(folder: Path, logger: WandbLogger | None = None, exit_code: int = 0, **fields) -> dict:
    """A record, written and logged as a run does it."""
    record, logger = made(**fields), logger or WandbLogger()
    file = records.write(record, folder / "results")
    logger.start(record, folder)
    for point in record["history"]:
        logger.log(point, point["step"])
    logger.finish(record, file, exit_code)
    return record


class Interrupt(BaseException):
    """Stands for what a signal handler raises."""


@pytest.fixture(scope="module", autouse=True)
def _stop_service() -> Iterator[None]:
    yield
    wandb.teardown()


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "vltune.loggers.wandb" and record.levelno >= logging.WARNING
    ]


def test_offline_run_reads_back(tmp_path, caplog):
    record = logged(tmp_path, WandbLogger(project="trial", tags=["mine", "apt"]), sweep="table_mini")
    run = read_back(tmp_path)
    assert run["name"] == "apt-vilt_mini-vqa-shapes-seed0"
    assert (run["project"], run["group"], run["job_type"]) == ("trial", "table_mini", "vqa")
    assert run["tags"] == ["apt", "vilt_mini", "vqa", "shapes", "mine"]
    assert {key: run["config"][key] for key in CONFIG} == CONFIG
    assert run["config"]["identity"] == IDENTITY
    assert run["config"]["provenance"]["hardware"] == record["provenance"]["hardware"]
    assert [(row["_step"], row["train/loss"]) for row in run["history"][:3]] == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]
    assert all("step" not in row for row in run["history"])
    assert run["exit_code"] == 0
    assert not warnings(caplog)


def test_scores_and_costs_are_in_the_summary_and_in_a_row_of_their_own(tmp_path):
    logged(
        tmp_path,
        metrics={"val": {"vqa_score": 70.5}, "test": {"vqa_score": 71.25}},
        latency_ms={"median": 3.5, "p95": None},
        method_params=42,
    )
    figures = {
        "val/vqa_score": 70.5,
        "test/vqa_score": 71.25,
        "cost/method_params": 42,
        "cost/task_params": 1280,
        "cost/additional_macs": 0,
        "cost/latency_ms_median": 3.5,
        "run/seconds": 30.0,
    }
    run = read_back(tmp_path)
    own = {name: value for name, value in run["summary"].items() if name.startswith(("val/", "test/", "cost/", "run/"))}
    assert own == figures | {"run/status": "finished"}
    last = run["history"][-1]
    assert {name: value for name, value in last.items() if not name.startswith("_")} == figures
    assert last["_step"] == 4


def test_a_failed_run_says_what_it_failed_with(tmp_path):
    error = "Traceback (most recent call last):\n  ...\nRuntimeError: boom\n"
    logged(tmp_path, exit_code=1, status="failed", error=error, metrics={"val": None, "test": None})
    run = read_back(tmp_path)
    assert (run["exit_code"], run["summary"]["run/status"]) == (1, "failed")
    assert run["summary"]["run/error"] == "RuntimeError: boom"
    assert [row["_step"] for row in run["history"]] == [1, 2, 3]
    assert not run["artifacts"]


def test_a_trial_on_a_part_of_a_split_has_a_tag(tmp_path):
    logged(tmp_path, config={"engine": {"eval_examples": 5}})
    assert "trial" in read_back(tmp_path)["tags"]


def test_record_predictions_and_adapter_are_artifacts_that_refer_to_the_files(tmp_path):
    record = made()
    file = records.write(record, tmp_path / "results")
    file.with_suffix(".parquet").write_bytes(b"predictions")
    file.with_suffix(".safetensors").write_bytes(b"tuned")
    logger = WandbLogger()
    logger.start(record, tmp_path)
    logger.finish(record, file, 0)
    kept = read_back(tmp_path)["artifacts"]
    name = "apt-vilt_mini-vqa-shapes-seed0-0123abcd"
    assert {key: value["kind"] for key, value in kept.items()} == {f"{name}-record": "record", f"{name}-model": "model"}
    suffixes = {f"{name}-record": (".json", ".parquet"), f"{name}-model": (".safetensors",)}
    for key, value in kept.items():
        assert value["files"] == {file.with_suffix(end).name: file.with_suffix(end).resolve() for end in suffixes[key]}


def test_a_file_that_is_too_large_is_left_out_and_named(tmp_path):
    record = made()
    file = records.write(record, tmp_path / "results")
    file.with_suffix(".safetensors").write_bytes(bytes(2_000_000))
    logger = WandbLogger(largest_artifact_mb=1)
    logger.start(record, tmp_path)
    logger.finish(record, file, 0)
    run = read_back(tmp_path)
    assert [each["kind"] for each in run["artifacts"].values()] == ["record"]
    assert run["summary"]["run/left_out"] == "apt-0123abcd-seed0.safetensors (2 MB)"


def picture(size, colour) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


class Questions:
    """Stands for a split's examples: a red picture, but the last one's, which is damaged."""

    def asked(self, id, prediction):
        content = picture((640, 320), "red") if id < 5 else b"no image"
        return Asked(Shown(f"question {id}?", (content,)), {"red": 1.0, "pink": 0.3} if id else {})

    def said(self, prediction):
        return Shown(prediction)


def test_a_sample_of_predictions_is_a_table_with_small_images(tmp_path, caplog):
    record = made()
    file = records.write(record, tmp_path / "results")
    logger = WandbLogger()
    logger.start(record, tmp_path)
    rows = [{"id": id, "prediction": "red", "score": 1.0} for id in range(6)]
    logger.table({"val": [], "test": rows}, lambda split: Questions())
    logger.finish(record, file, 0)
    run = read_back(tmp_path)
    shown = table(run, "test/examples")
    assert shown["columns"] == ["id", "image", "text", "prediction", "truth", "score"]
    assert [row[0] for row in shown["data"]] == list(range(6))
    assert shown["data"][1][2:] == ["question 1?", "red", "red, pink (0.3)", 1.0]
    assert shown["data"][5][1] is None
    content = shown["files"][shown["data"][1][1]["path"]]
    assert tmp_path in content.parents, "in the run's folder, not in the home folder"
    with Image.open(content) as small:
        assert (small.format, small.size) == ("JPEG", (224, 112))
    assert run["history"][-1]["_step"] == 5
    assert not warnings(caplog)


def test_no_table_where_none_is_wanted(tmp_path):
    def look(split):
        raise AssertionError("opened")

    logger, record = WandbLogger(examples=0), made()
    file = records.write(record, tmp_path / "results")
    logger.start(record, tmp_path)
    logger.table({"test": [{"id": 1, "prediction": "red", "score": 1.0}]}, look)
    logger.finish(record, file, 0)
    assert [row["_step"] for row in read_back(tmp_path)["history"]] == [4]


def test_long_history_reads_back(tmp_path):
    logged(tmp_path, history=[{"step": step, "train/loss": float(step)} for step in range(1000)])
    losses = [row["train/loss"] for row in read_back(tmp_path)["history"] if "train/loss" in row]
    assert losses == list(range(1000))
    [path] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert path.stat().st_size > 2 * 32768


def test_runs_one_after_another(tmp_path):
    """The second fails; the first one's id, values and exit code stay its own."""
    logger = WandbLogger()
    for seed, exit_code in ((0, 0), (1, 1), (2, 130)):
        history = [{"step": 1, "train/loss": float(seed)}]
        logged(tmp_path / str(seed), logger, exit_code, seed=seed, method_params=seed, history=history)
    runs = [read_back(tmp_path / str(seed)) for seed in range(3)]
    assert len({run["id"] for run in runs}) == 3
    assert [run["exit_code"] for run in runs] == [0, 1, 130]
    assert [run["history"][0]["train/loss"] for run in runs] == [0, 1, 2]
    assert [run["summary"]["cost/method_params"] for run in runs] == [0, 1, 2]
    assert [run["name"][-5:] for run in runs] == ["seed0", "seed1", "seed2"]


def test_id_follows_from_the_identity(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(wandb, "init", lambda **arguments: seen.append(arguments))
    variants = [IDENTITY, dict(reversed(IDENTITY.items())), *({**IDENTITY, key: "9"} for key in IDENTITY)]
    for identity in variants:
        WandbLogger(mode="online").start(made() | {"identity": identity}, tmp_path)
    first, again, *others = [arguments["id"] for arguments in seen]
    assert first == again == "244a48bc48c76538"  # another value cuts off every run that is now waiting to be resumed
    assert len({first, *others}) == len(IDENTITY) + 1
    assert all(arguments["resume"] == "allow" and arguments["mode"] == "online" for arguments in seen)


def test_an_offline_run_that_goes_on_leaves_one_set_of_files_with_all_steps(tmp_path):
    logger, record = WandbLogger(), made()
    file = records.write(record, tmp_path / "results")
    for stopped_after in (2, 4):
        logger.start(record, tmp_path)
        for step in range(1, stopped_after):
            logger.log({"train/loss": float(step)}, step)
        logger.finish(record, file, 0 if stopped_after == 4 else 143)
    run = read_back(tmp_path)
    assert [row["_step"] for row in run["history"]] == [1, 2, 3, 4]
    assert run["exit_code"] == 0


def test_a_run_left_open_does_not_swallow_the_next(tmp_path):
    left_open = WandbLogger()
    left_open.start(made(), tmp_path / "left_open")
    logged(tmp_path / "next", seed=1)
    left_open.finish(made(), tmp_path / "none.json", exit_code=1)
    assert read_back(tmp_path / "next")["name"].endswith("seed1")
    assert read_back(tmp_path / "left_open")["history"] == []


def test_failing_start_is_one_warning(monkeypatch, tmp_path, caplog):
    def init(**_):
        raise RuntimeError("no\n  luck")

    monkeypatch.setattr(wandb, "init", init)
    logged(tmp_path)
    assert warnings(caplog) == [f"W&B could not start: RuntimeError: no luck: {OFF}"]


def test_failing_log_is_one_warning_and_the_run_is_closed(monkeypatch, tmp_path, caplog):
    def log(*_, **__):
        raise ConnectionResetError("Connection lost")

    logger = WandbLogger()
    with monkeypatch.context() as patch:
        patch.setattr(wandb.Run, "log", log)
        logged(tmp_path / "0", logger, exit_code=3, method_params=7)
    assert warnings(caplog) == [f"W&B could not log: ConnectionResetError: Connection lost: {OFF}"]
    run = read_back(tmp_path / "0")
    assert (run["history"], run["summary"]["cost/method_params"], run["exit_code"]) == ([], 7, 3)

    logged(tmp_path / "1", logger, seed=1)  # the next run is logged again
    assert len(read_back(tmp_path / "1")["history"]) == 4


def test_a_table_that_cannot_be_made_leaves_the_scores(tmp_path, caplog):
    def look(split):
        raise RuntimeError("a bug")

    logger, record = WandbLogger(), made(method_params=7)
    file = records.write(record, tmp_path / "results")
    logger.start(record, tmp_path)
    logger.table({"test": [{"id": 1, "prediction": "red", "score": 1.0}]}, look)
    logger.finish(record, file, 0)
    run = read_back(tmp_path)
    assert (run["summary"]["cost/method_params"], run["exit_code"]) == (7, 0)
    assert warnings(caplog) == [f"W&B could not make a table: RuntimeError: a bug: {OFF}"]


def test_failing_summary_still_closes_the_run(tmp_path, caplog):
    logger, record = WandbLogger(), made()
    logger.start(record, tmp_path)
    record["cost"]["method_params"] = object()
    logger.finish(record, tmp_path / "none.json", exit_code=1)
    assert read_back(tmp_path)["exit_code"] == 1
    assert len(warnings(caplog)) == 1


def test_finish_without_start_is_quiet(tmp_path, caplog):
    WandbLogger().finish(made(), tmp_path / "none.json", exit_code=1)
    assert not caplog.records


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, Interrupt])
def test_interrupts_pass(monkeypatch, tmp_path, interrupt):
    def init(**_):
        raise interrupt

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(interrupt):
        WandbLogger().start(made(), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_handlers_stay_the_callers(tmp_path, number):
    def handler(*_):
        raise Interrupt

    logger = WandbLogger()
    before = signal.signal(number, handler)
    try:
        logger.start(made(), tmp_path)
        logger.log({"train/loss": 1.0}, step=1)
        assert signal.getsignal(number) is handler
        with pytest.raises(Interrupt):
            signal.raise_signal(number)
        logger.finish(made(), tmp_path / "none.json", exit_code=130)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    run = read_back(tmp_path)
    assert (len(run["history"]), run["exit_code"]) == (1, 130)


def run_process(body: str, folder: Path) -> subprocess.CompletedProcess:
    """A process of its own, as run.py is one, with a run started under `folder` before `body`."""
    script = f"""
import os, signal
from pathlib import Path
from vltune.loggers.wandb import WandbLogger
logger, record, folder = WandbLogger(), {made()!r}, Path({str(folder)!r})
logger.start(record, folder)
{body}
"""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, check=True, start_new_session=True, timeout=60, capture_output=True, text=True)


def test_a_signal_to_the_whole_group_spares_the_exit_code(tmp_path):
    """A terminal's Ctrl-C reaches every process of the group."""
    body = """
try:
    os.killpg(0, signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    logger.finish(record, folder / "none.json", 130)
"""
    run_process(body, tmp_path)
    assert read_back(tmp_path)["exit_code"] == 130


def test_the_console_gets_one_line(tmp_path):
    done = run_process("print('printed by the run'); logger.finish(record, folder / 'none.json', 1)", tmp_path)
    [files] = tmp_path.glob("wandb/offline-run-*")
    assert (done.stdout, done.stderr) == ("printed by the run\n", f"W&B: offline, {files}\n")
    assert not list(tmp_path.rglob("output.log"))


def test_offline_sends_no_telemetry(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    monkeypatch.setattr(wandb, "init", lambda **_: None)
    WandbLogger(mode="online").start(made(), tmp_path)
    assert "WANDB_ERROR_REPORTING" not in os.environ
    WandbLogger().start(made(), tmp_path)
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_wandb_is_imported_only_on_start():
    script = (
        "import sys; from vltune.loggers.wandb import WandbLogger; WandbLogger(); assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(("entity", "found"), [(None, False), ("team", False), ("alice", True)])
def test_what_was_sent_to_one_entity_was_not_sent_to_the_one_of_the_environment(entity, found, monkeypatch, tmp_path):
    file = records.write(made(), tmp_path / "results")
    monkeypatch.setenv("WANDB_ENTITY", "alice")
    assert WandbLogger(mode="offline").mirror(made(), file, tmp_path, lambda split: {}) == "sent"
    assert WandbLogger(mode="offline").has(file, tmp_path)
    monkeypatch.setenv("WANDB_ENTITY", "team")
    assert WandbLogger(mode="offline", entity=entity).has(file, tmp_path) is found


def test_wrong_mode_names_the_choices():
    with pytest.raises(UserError, match=r"logger\.mode=disabled: choose offline or online"):
        WandbLogger(mode="disabled")


@pytest.mark.parametrize(("name", "kind"), [("none", NoLogger), ("wandb", WandbLogger)])
def test_shipped_configs_build(name, kind):
    logger = instantiate(OmegaConf.load(SHIPPED / f"{name}.yaml"))
    assert type(logger) is kind
    assert getattr(logger, "mode", "offline") == "offline"
