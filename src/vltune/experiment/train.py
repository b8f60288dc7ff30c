"""mode=train and mode=pretrain: a run that trains, evaluates, measures its cost and leaves one record."""

from __future__ import annotations

import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.assemble.data import examples_of
from vltune.assemble.factory import build
from vltune.assemble.model import build_pretrained, protocol
from vltune.atomic import reserve
from vltune.batch import Batch
from vltune.command_line import FAILED
from vltune.engine.session import Session
from vltune.experiment.claim import Claim, leave_together
from vltune.experiment.outcome import missing_scores, scores
from vltune.experiment.setup import keep_features, make_fabric, new_record, prepare
from vltune.metrics.metric import of_examples
from vltune.records import record as records
from vltune.runs.clock import Clock
from vltune.runs.identity import identity as identify
from vltune.runs.lock import Lock
from vltune.runs.signals import Interrupted, OwnedElsewhere, StopRequest
from vltune.settings.config import RunConfig
from vltune.settings.engine import Settings

if TYPE_CHECKING:
    from vltune.engine.train import TrainingState
    from vltune.model import Model

ROOM = "room.tmp"  # on the disk, to say that it is full
NO_LOGGER = {"_target_": "vltune.loggers.none.NoLogger"}


def train(config: RunConfig, overrides: list[str]) -> Path:
    """Trains, evaluates and measures, unless a finished record of this very run is there, or another process makes it."""
    from vltune.engine.source import BadExamples

    clock, root, settings = Clock(), config.results_dir, config.engine
    data, fingerprints = prepare(config)
    identity = identify(config.plain, fingerprints)
    clock.end()
    file = records.path(root, identity)
    folder = records.run_folder(root, file.relative_to(root))
    with StopRequest() as stop, Lock(folder, state=partial(state, clock), lost=stop.lose) as lock:
        stop.may_write = lock.assure
        claim = Claim(root, file, folder, config.force, config.busy, lock, stop)
        alone = settings.devices * settings.nodes == 1
        if alone and claim.is_done(claim.found):  # of several processes rank zero decides
            return report_finished(claim.found, file, folder, config)
        fabric = make_fabric(settings)
        if not claim.take(fabric):
            return report_finished(records.read(file), file, folder, config) if fabric.is_global_zero else file
        clock.begin("build")
        fabric.seed_everything(config.seed, verbose=False)
        record = new_record(config, identity, file.stem, fingerprints)
        logger = build(config.logger if fabric.is_global_zero else NO_LOGGER)
        if fabric.is_global_zero:
            clock.before = claim.begin()
            records.write(record, root)
        fabric.barrier()  # what was before may be in the way of the others
        room = reserve(folder / ROOM) if fabric.is_global_zero else nullcontext()
        try:
            with ending(record, root, logger, clock, stop, fabric.is_global_zero), room:
                logger.start(record, folder)
                model = build_pretrained(config.weights, config.backbone, config.task, config.method, data.facts)
                model.tuning.check_start(model)
                bad = BadExamples(config.dataset["max_bad_examples"])
                label, kept = f"{identity['method']} seed {config.seed}", folder / "checkpoints"
                session = Session(fabric, model, data, settings, file, kept, stop, bad, label, logger, clock)
                fill(config, record, session)
        except (Interrupted, OwnedElsewhere) as stopped:
            leave_together(fabric, stop, stopped)
            raise
        if fabric.is_global_zero:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            print(f"{scores(record)}{missing_scores(record, file)}")
    return file


def state(clock: Clock) -> dict:
    """What the lock holds of a run in work; of a killed one that is all that says how long it took."""
    from vltune.runs import progress

    return {"phase": clock.phase or "start", "seconds": clock.total(), **progress.state()}


def report_finished(record: dict, file: Path, folder: Path, config: RunConfig) -> Path:
    build(config.logger).again(record, file, folder, partial(examples_of, config.plain))
    print(f"finished before; force=true runs it again\n{scores(record)}{missing_scores(record, file)}")
    return file


def fill(config: RunConfig, record: dict, session: Session) -> None:
    """Trains and evaluates; fills in the record and writes what lies beside it."""
    from vltune.costs import macs, usage
    from vltune.engine import kernels, seen
    from vltune.engine.memory import evaluating
    from vltune.engine.train import train as train_loop
    from vltune.evaluators.evaluate import check_splits, predictions, validate
    from vltune.features.recalled import recall
    from vltune.nn import attend

    clock, settings, task = session.clock, session.settings, session.model.task
    check_splits(session, config.task["name"])
    if settings.cache_features and config.task.get("reader"):
        clock.begin("features")
        with evaluating(session.label, session.data.eval_batch_size):
            keep_features(session, read_splits(settings))
    if task.recalls:
        clock.begin("paint")
        with evaluating(session.label, session.data.eval_batch_size):
            recall(session)
    session.stop.check(session.fabric)
    clock.begin("train")
    usage.reset_peak_memory(session.fabric.device)
    trained = train_loop(session, validate=partial(validate, session))
    device = session.fabric.device
    peak = max(usage.peak_memory_bytes(device), trained.seen.get("peak_memory", {}).get(device.type, 0))
    clock.begin("evaluate")
    predicted = {split: predictions(session, split) for split in settings.evaluate}
    session.bad.gather(session.fabric)
    record["provenance"] |= {"attention": attend.used(), "kernels": kernels.used()}
    if earlier := seen.elsewhere(trained.seen):
        record["provenance"]["earlier_hardware"] = earlier
    clock.begin("cost")
    if not session.fabric.is_global_zero:
        return
    record |= task.declaration()
    for split, rows in predicted.items():
        record["metrics"][split] = (task.figures(rows) or None) if rows else None
    sampled = {split: of_examples(task.metrics, rows or ()) for split, rows in predicted.items()}
    session.logger.table(sampled, partial(examples_of, config.plain))
    record |= outcome(session, trained)
    for warning in record["warnings"]:
        print(f"{session.label}: {warning}", file=sys.stderr)
    session.stop.may_write()
    saved = write_beside(config.mode, record, session, predicted)
    record["cost"] |= {
        "train_step_ms": usage.spread(trained.step_ms),
        "peak_memory_bytes": peak,
        "adapter_bytes": saved,
        **macs.parameters(session.model),
    }
    if config.mode == "train":
        batch = protocol(config.backbone, session.model)
        with session.fabric.autocast():
            record["cost"] |= inference(session.model, batch, settings.eval_batch_size, session.stop)
        record["cost"] |= macs.macs(session.model.cpu().float(), batch)
    session.stop.check()


def read_splits(settings: Settings) -> set[str]:
    """Those of which so much is read that stored features pay."""
    if settings.eval_examples is not None:
        return {"train"}
    return {"train", *settings.evaluate} | ({"val"} if settings.select == "best" else set())


def outcome(session: Session, trained: TrainingState) -> dict:
    """What a record says of its training."""
    from vltune.engine.train import failure

    selection = getattr(session.data.split("train"), "selection", None)
    return {
        "bad_examples": list(session.bad.seen),
        "warnings": [told] if (told := failure(session, trained)) else [],
        **({"few_shot": selection} if selection else {}),
        "history": trained.history,
        "out_of_memory": trained.halved,
        "selected": {"step": trained.best["step"] if trained.best else trained.step, "by": session.settings.select},
    }


def write_beside(mode: str, record: dict, session: Session, predicted: dict[str, list[dict]]) -> int:
    """Writes the predictions and what was tuned, or the pretrained backbone; the bytes of the latter."""
    from vltune.engine import artifacts

    tensors = session.file.with_suffix(".safetensors")
    if mode == "pretrain":
        return artifacts.write_backbone(tensors, session.model)
    artifacts.write_predictions(session.file.with_suffix(".parquet"), predicted, record, session.model.task.columns)
    return artifacts.write_tuned(tensors, session.model)


def inference(model: Model, batch: Batch, batch_size: int, stop: StopRequest) -> dict:
    """Latency of one example in milliseconds, and examples a second in batches.  Interrupted where `stop` is asked for."""
    from vltune.costs import usage
    from vltune.engine import memory

    stop.check()
    with memory.evaluating("cost of inference", batch_size):
        many = usage.spread(usage.inference(model, usage.repeat(batch, batch_size), repeats=6))
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
