"""Reads back what W&B really writes offline; no test here reaches the network."""

import json
import logging
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import wandb
from hydra.utils import instantiate
from omegaconf import OmegaConf
from wandb.proto.wandb_internal_pb2 import Record

from vltune.errors import UserError
from vltune.loggers.none import NoLogger
from vltune.loggers.wandb import WandbLogger

IDENTITY = {
    "backbone": "vilt_mini",
    "method": "apt",
    "task": "vqa",
    "dataset": "shapes",
    "seed": 0,
    "hash": "0123abcd",
}
CONFIG = {"engine": {"lr": 1e-3, "epochs": 2}, "tags": ["a", "b"], "checkpoint": None}
SHIPPED = Path(__file__).parents[2] / "conf" / "logger"


class Interrupt(BaseException):
    """Stands for what a signal handler raises."""


@pytest.fixture(scope="module", autouse=True)
def _stop_service() -> Iterator[None]:
    yield
    wandb.teardown()


def records(path: Path) -> Iterator[Record]:
    """The records of a `run-*.wandb` file: 7 bytes of header, then LevelDB's log format, blocks of 32 KiB.

    Ends where a file that is still being written does.  Source: https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        begin, position = position + 7, position + 7 + length
        if position > len(data):
            return
        record += data[begin:position]
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(record)
            record = b""


def closed(path: Path) -> list[Record]:
    """The records of a finished run.  wandb's service may write the last ones some time after `finish`."""
    deadline = time.monotonic() + 30  # 2.4 s seen on a machine with four times more work than cores
    while time.monotonic() < deadline:
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.002)
    raise TimeoutError(f"{path} never got its exit record")


def decode(items: Iterable) -> dict:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_back(folder: Path) -> dict:
    """The only run under `folder`: its id, name, group, ..., config, history, summary and exit code."""
    [path] = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = {"config": {}, "history": [], "summary": {}}
    for record in closed(path):
        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
                found |= {"id": run.run_id, "name": run.display_name, "group": run.run_group, "tags": list(run.tags)}
                found |= {"project": run.project, "job_type": run.job_type}
                found["config"] |= decode(run.config.update)
            case "config":
                found["config"] |= decode(record.config.update)
            case "history":
                found["history"].append(decode(record.history.item))
            case "summary":
                found["summary"] |= decode(record.summary.update)
            case "exit":
                found["exit_code"] = record.exit.exit_code
    return found


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "vltune.loggers.wandb" and record.levelno >= logging.WARNING
    ]


def test_offline_run_reads_back(tmp_path, caplog):
    logger = WandbLogger(project="trial", tags=["t"])
    logger.start(IDENTITY, CONFIG, tmp_path, group="table_mini")
    for step in range(1, 4):
        logger.log({"train/loss": 1 / step, "train/lr": 1e-3}, step=step)
    logger.finish({"cost/method_params": 42, "test/vqa_score": 71.25}, exit_code=0)

    run = read_back(tmp_path)
    assert run["name"] == "apt-vilt_mini-vqa-shapes-seed0"
    assert (run["project"], run["group"], run["job_type"], run["tags"]) == ("trial", "table_mini", "vqa", ["t"])
    assert {key: run["config"][key] for key in CONFIG} == CONFIG
    assert run["config"]["identity"] == IDENTITY
    assert [row["_step"] for row in run["history"]] == [1, 2, 3]
    assert [row["train/loss"] for row in run["history"]] == [1, 1 / 2, 1 / 3]
    assert run["summary"]["cost/method_params"] == 42
    assert run["summary"]["test/vqa_score"] == 71.25
    assert run["exit_code"] == 0
    assert not warnings(caplog)


def test_long_history_reads_back(tmp_path):
    logger = WandbLogger()
    logger.start(IDENTITY, CONFIG, tmp_path, group=None)
    for step in range(1000):
        logger.log({"train/loss": float(step)}, step=step)
    logger.finish({}, exit_code=0)
    assert [row["train/loss"] for row in read_back(tmp_path)["history"]] == list(range(1000))
    [path] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert path.stat().st_size > 2 * 32768


def test_runs_one_after_another(tmp_path):
    """The second fails; the first one's id, values and exit code stay its own."""
    logger = WandbLogger()
    for seed, exit_code in ((0, 0), (1, 1), (2, 130)):
        logger.start({**IDENTITY, "seed": seed}, CONFIG, tmp_path / str(seed), group=None)
        logger.log({"train/loss": float(seed)}, step=1)
        logger.finish({"test/vqa_score": seed}, exit_code)
    runs = [read_back(tmp_path / str(seed)) for seed in range(3)]
    assert len({run["id"] for run in runs}) == 3
    assert [run["exit_code"] for run in runs] == [0, 1, 130]
    assert [run["history"][0]["train/loss"] for run in runs] == [0, 1, 2]
    assert [run["summary"]["test/vqa_score"] for run in runs] == [0, 1, 2]
    assert [run["name"][-5:] for run in runs] == ["seed0", "seed1", "seed2"]


def test_id_follows_from_the_identity(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(wandb, "init", lambda **arguments: seen.append(arguments))
    variants = [IDENTITY, dict(reversed(IDENTITY.items())), *({**IDENTITY, key: "9"} for key in IDENTITY)]
    for identity in variants:
        WandbLogger(mode="online").start(identity, {}, tmp_path, group=None)
    first, again, *others = [arguments["id"] for arguments in seen]
    assert first == again == "244a48bc48c76538"  # another value cuts off every run that is now waiting to be resumed
    assert len({first, *others}) == len(IDENTITY) + 1
    assert all(arguments["resume"] == "allow" and arguments["mode"] == "online" for arguments in seen)


def test_a_run_left_open_does_not_swallow_the_next(tmp_path):
    left_open, logger = WandbLogger(), WandbLogger()
    left_open.start(IDENTITY, CONFIG, tmp_path / "left_open", group=None)
    logger.start({**IDENTITY, "seed": 1}, CONFIG, tmp_path / "next", group=None)
    logger.log({"train/loss": 1.0}, step=1)
    logger.finish({}, exit_code=0)
    left_open.finish({}, exit_code=1)
    assert read_back(tmp_path / "next")["name"].endswith("seed1")
    assert read_back(tmp_path / "left_open")["history"] == []


def test_failing_start_is_one_warning(monkeypatch, tmp_path, caplog):
    def init(**_):
        raise RuntimeError("no\n  luck")

    monkeypatch.setattr(wandb, "init", init)
    logger = WandbLogger()
    logger.start(IDENTITY, CONFIG, tmp_path, group=None)
    logger.log({"train/loss": 1.0}, step=1)
    logger.finish({}, exit_code=0)
    assert warnings(caplog) == ["W&B could not start, and is off for this run: RuntimeError: no luck"]


def test_failing_log_is_one_warning_and_the_run_is_closed(monkeypatch, tmp_path, caplog):
    def log(*_, **__):
        raise ConnectionResetError("Connection lost")

    logger = WandbLogger()
    logger.start(IDENTITY, CONFIG, tmp_path / "0", group=None)
    with monkeypatch.context() as patch:
        patch.setattr(wandb.Run, "log", log)
        logger.log({"train/loss": 1.0}, step=1)
    logger.log({"train/loss": 1.0}, step=2)
    logger.finish({"test/vqa_score": 1.0}, exit_code=3)
    assert warnings(caplog) == ["W&B could not log, and is off for this run: ConnectionResetError: Connection lost"]
    run = read_back(tmp_path / "0")
    assert (run["history"], run["summary"]["test/vqa_score"], run["exit_code"]) == ([], 1.0, 3)

    logger.start({**IDENTITY, "seed": 1}, CONFIG, tmp_path / "1", group=None)  # the next run is logged again
    logger.log({"train/loss": 1.0}, step=1)
    logger.finish({}, exit_code=0)
    assert len(read_back(tmp_path / "1")["history"]) == 1


def test_failing_summary_still_closes_the_run(tmp_path, caplog):
    logger = WandbLogger()
    logger.start(IDENTITY, CONFIG, tmp_path, group=None)
    logger.finish({"test/vqa_score": object()}, exit_code=1)
    assert read_back(tmp_path)["exit_code"] == 1
    assert len(warnings(caplog)) == 1


def test_finish_without_start_is_quiet(caplog):
    WandbLogger().finish({"test/vqa_score": 1.0}, exit_code=1)
    assert not caplog.records


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, Interrupt])
def test_interrupts_pass(monkeypatch, tmp_path, interrupt):
    def init(**_):
        raise interrupt

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(interrupt):
        WandbLogger().start(IDENTITY, CONFIG, tmp_path, group=None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_handlers_stay_the_callers(tmp_path, number):
    def handler(*_):
        raise Interrupt

    logger = WandbLogger()
    before = signal.signal(number, handler)
    try:
        logger.start(IDENTITY, CONFIG, tmp_path, group=None)
        logger.log({"train/loss": 1.0}, step=1)
        assert signal.getsignal(number) is handler
        with pytest.raises(Interrupt):
            signal.raise_signal(number)
        logger.finish({}, exit_code=130)
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
logger = WandbLogger()
logger.start({IDENTITY!r}, {CONFIG!r}, Path({str(folder)!r}), None)
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
    logger.finish({}, 130)
"""
    run_process(body, tmp_path)
    assert read_back(tmp_path)["exit_code"] == 130


def test_console_stays_alone(tmp_path):
    done = run_process("print('printed by the run'); logger.finish({}, 1)", tmp_path)
    assert (done.stdout, done.stderr) == ("printed by the run\n", "")
    assert not list(tmp_path.rglob("output.log"))


def test_offline_sends_no_telemetry(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    monkeypatch.setattr(wandb, "init", lambda **_: None)
    WandbLogger(mode="online").start(IDENTITY, CONFIG, tmp_path, group=None)
    assert "WANDB_ERROR_REPORTING" not in os.environ
    WandbLogger().start(IDENTITY, CONFIG, tmp_path, group=None)
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_wandb_is_imported_only_on_start():
    script = (
        "import sys; from vltune.loggers.wandb import WandbLogger; WandbLogger(); assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_wrong_mode_names_the_choices():
    with pytest.raises(UserError, match=r"logger\.mode=disabled: choose offline or online"):
        WandbLogger(mode="disabled")


@pytest.mark.parametrize(("name", "kind"), [("none", NoLogger), ("wandb", WandbLogger)])
def test_shipped_configs_build(name, kind):
    logger = instantiate(OmegaConf.load(SHIPPED / f"{name}.yaml"))
    assert type(logger) is kind
    assert getattr(logger, "mode", "offline") == "offline"
