"""mode=train and mode=pretrain: a run that trains, evaluates, measures its cost and leaves one record."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.assemble.data import Data, examples
from vltune.assemble.factory import build, build_settings
from vltune.assemble.model import build_model, protocol
from vltune.atomic import reserve
from vltune.command_line import FAILED
from vltune.engine.settings import Settings
from vltune.errors import UserError
from vltune.experiment.claim import Claim, leave_together
from vltune.experiment.clock import Clock
from vltune.experiment.scoring import keep_features, score
from vltune.experiment.setup import begun, make_fabric, prepare
from vltune.experiment.summary import scores, unscored
from vltune.records import record as records
from vltune.runs.identity import identity as identify
from vltune.runs.lock import Lock
from vltune.runs.signals import Interrupted, OwnedElsewhere, StopRequest

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from vltune.model import Model

ROOM = "room.tmp"  # on the disk, to say that it is full
NO_LOGGER = {"_target_": "vltune.loggers.none.NoLogger"}


def train(config: dict, overrides: list[str]) -> Path:
    """Trains, evaluates and measures, unless a finished record of this very run is there, or another process makes it."""
    clock, root = Clock(), Path(config["results_dir"])
    settings = build_settings(config)
    data, fingerprints = prepare(config)
    identity = identify(config, fingerprints)
    clock.end()
    file = records.path(root, identity)
    folder = records.run_folder(root, file.relative_to(root))
    with (
        StopRequest() as stop,
        Lock(folder, tell=lambda: told_of(clock), lost=stop.lose) as lock,
    ):
        stop.may_write = lock.assure
        turn = Claim(root, file, folder, config["force"], config["busy"], lock, stop)
        alone = settings.devices * settings.nodes == 1
        if alone and turn.is_done(turn.found):  # of several processes rank zero decides
            return report_finished(turn.found, file, folder, config)
        fabric = make_fabric(settings)
        if not turn.take(fabric):
            return report_finished(records.read(file), file, folder, config) if fabric.is_global_zero else file
        clock.begin("build")
        fabric.seed_everything(config["seed"], verbose=False)
        record = begun(config, identity, file.stem, fingerprints)
        logger = build(config["logger"] if fabric.is_global_zero else NO_LOGGER)
        if fabric.is_global_zero:
            clock.before = turn.begin()
            records.write(record, root)
        fabric.barrier()  # what was before may be in the way of the others
        room = reserve(folder / ROOM) if fabric.is_global_zero else nullcontext()
        try:
            with ending(record, root, logger, clock, stop, fabric.is_global_zero), room:
                logger.start(record, folder)
                fill(record, config, settings, data, fabric, file, folder, logger, clock, stop)
        except (Interrupted, OwnedElsewhere) as stopped:
            leave_together(fabric, stop, stopped)
            raise
        if fabric.is_global_zero:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            print(f"{scores(record)}{unscored(record, file)}")
    return file


def told_of(clock: Clock) -> dict:
    """What the lock says of a run in work; of a killed one that is all that tells how long it took."""
    from vltune.runs import progress

    return {"phase": clock.phase or "start", "seconds": clock.total(), **progress.told()}


def report_finished(record: dict, file: Path, folder: Path, config: dict) -> Path:
    build(config["logger"]).again(record, file, folder, partial(examples, config))
    print(f"finished before; force=true runs it again\n{scores(record)}{unscored(record, file)}")
    return file


def fill(
    record: dict,
    config: dict,
    settings: Settings,
    data: Data,
    fabric: Fabric,
    file: Path,
    folder: Path,
    logger,
    clock: Clock,
    stop: StopRequest,
) -> None:
    """Trains and evaluates; fills in the record and writes what lies beside it."""
    from vltune.costs import macs, usage
    from vltune.engine import artifacts
    from vltune.engine.source import BadExamples
    from vltune.engine.train import train as train_loop

    label = f"{record['identity']['method']} seed {config['seed']}"
    model = build_model(config, data.facts)
    if model.task.pairs and settings.eval_examples is not None:
        raise UserError(f"engine.eval_examples={settings.eval_examples}: retrieval ranks whole splits; set it to null")
    bad = BadExamples(config["dataset"]["max_bad_examples"])
    if settings.cache_features and config["task"].get("reader"):
        scored = {*settings.evaluate} | ({"val"} if settings.select == "best" else set())
        splits = {"train"} | (scored if settings.eval_examples is None else set())
        clock.begin("features")
        keep_features(fabric, model, data, splits, settings, stop)
    stop.check(fabric)

    def rows(split: str) -> list[dict]:
        return score(fabric, model, data, split, settings, stop, bad, f"{label}, {split}", folder / "checkpoints")

    clock.begin("train")
    usage.reset_peak_memory()
    trained = train_loop(
        fabric,
        model,
        data.training(),
        settings,
        folder / "checkpoints" / "last.pt",
        stop,
        bad,
        validate=lambda: model.task.metrics(rows("val"))[model.task.metric],
        log=logger.log,
        label=label,
    )
    peak = usage.peak_memory_bytes()
    clock.begin("evaluate")
    predictions = {split: rows(split) for split in settings.evaluate}
    clock.begin("cost")
    if not fabric.is_global_zero:
        return
    for split, of_split in predictions.items():
        record["metrics"][split] = (model.task.metrics(of_split) or None) if of_split else None
    logger.table(predictions, partial(examples, config))
    record["bad_examples"] = list(bad.seen)
    record["history"] = trained.history
    record["out_of_memory"] = trained.halved
    record["selected"] = {"step": trained.best["step"] if trained.best else trained.step, "by": settings.select}
    stop.may_write()
    if config["mode"] == "train":
        artifacts.write_predictions(file.with_suffix(".parquet"), predictions, record)
        saved = artifacts.write_tuned(file.with_suffix(".safetensors"), model)
    else:
        saved = artifacts.write_backbone(file.with_suffix(".safetensors"), model)
    record["cost"] |= {
        "train_step_ms": usage.spread(trained.step_ms),
        "peak_memory_bytes": peak,
        "adapter_bytes": saved,
        **macs.parameters(model),
    }
    if config["mode"] == "train":
        batch = protocol(config, model)
        record["cost"] |= inference(model, batch, settings.eval_batch_size, stop) | macs.macs(model.cpu(), batch)
    stop.check()


def inference(model: Model, batch: dict, batch_size: int, stop: StopRequest) -> dict:
    """Latency of one example in milliseconds, and examples a second in batches.  Interrupted where `stop` is asked for."""
    from vltune.costs import usage
    from vltune.engine.memory import is_out_of_memory

    stop.check()
    try:
        many = usage.spread(usage.inference(model, usage.repeat(batch, batch_size), repeats=6))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory with engine.eval_batch_size={batch_size} examples at a time: lower it and give the command "
            "again; it goes on from what is trained"
        ) from None
    stop.check()
    one = usage.spread(usage.inference(model, batch))
    stop.check()
    return {"latency_ms": one, "throughput_per_s": 1000 * batch_size / many["median"]}


@contextmanager
def ending(record: dict, root: Path, logger, clock: Clock, stop: StopRequest, writes: bool) -> Iterator[None]:
    """However a run ends, its record says so and its logger is closed with the right exit status."""
    exit_code = FAILED
    try:
        yield
        record["status"], exit_code = "finished", 0
    except (Interrupted, OwnedElsewhere, KeyboardInterrupt) as stopped:
        record["status"] = "interrupted"
        exit_code = getattr(stopped, "exit_code", 130)
        raise
    except BaseException:
        record["status"], record["error"] = "failed", traceback.format_exc()
        raise
    finally:
        clock.end()
        record["provenance"] |= {"seconds": clock.total(), "phases": clock.laps}
        try:
            if writes:
                stop.may_write()
                records.write(record, root)
        finally:
            logger.finish(record, records.path(root, record["identity"]), exit_code)
