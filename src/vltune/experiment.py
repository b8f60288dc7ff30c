"""One experiment: what `python run.py` does once Hydra has composed its configuration."""

from __future__ import annotations

import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from vltune import assemble
from vltune.budget import sized, told
from vltune.engine.identity import identity as identify
from vltune.engine.interrupt import Elsewhere, Interrupted, StopRequest
from vltune.engine.lock import Lock, job
from vltune.engine.precision import settle
from vltune.engine.settings import Settings
from vltune.entry import FAILED, leave, resolve
from vltune.errors import UserError
from vltune.results import record as records
from vltune.turn import Turn, leave_together

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from omegaconf import DictConfig

    from vltune.engine.source import BadExamples
    from vltune.tasks.model import Model


def run(composed: DictConfig, overrides: list[str]) -> str:
    """Runs one experiment, and prints its record's path as the last line; ends the process where it fails.

    composed: Hydra's configuration; overrides: what the user typed."""
    try:
        resolved = resolve(composed)
        assemble.check_values(resolved)
        config = sized(settle(resolved), overrides)
        if "match" in config:
            print(told(config))
        file = mode_of(config)(config, overrides)
    except (Interrupted, Elsewhere) as stop:
        if stop.exit_code:
            print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except Exception as error:
        leave(error)
    print(f"record: {file}", flush=True)
    return str(file)


def mode_of(config: dict):
    modes = {"train": train, "pretrain": train, "eval": evaluate, "cost": cost}
    if config["mode"] not in modes:
        raise UserError(f"mode={config['mode']}: must be one of {', '.join(modes)}")
    return modes[config["mode"]]


def train(config: dict, overrides: list[str]) -> Path:
    """Trains, evaluates and measures, unless a finished record of this very run is there, or another process makes it."""
    from vltune.engine import progress

    clock, root = Clock(), Path(config["results_dir"])
    settings = assemble.settings(config)
    data, identity = prepare(config)
    clock.end()
    file = records.path(root, identity)
    folder = records.run_folder(root, file.relative_to(root))
    with (
        StopRequest() as stop,
        Lock(folder, tell=lambda: {"phase": clock.phase or "start", **progress.told()}, lost=stop.lose) as lock,
    ):
        stop.may_write = lock.assure
        turn = Turn(root, file, folder, config["force"], config["busy"], lock, stop)
        alone = settings.devices * settings.nodes == 1
        if alone and turn.is_done(turn.found):  # of several processes rank zero decides
            return told_again(turn.found, file, folder, config)
        fabric = make_fabric(settings)
        if not turn.take(fabric):
            return told_again(records.read(file), file, folder, config) if fabric.is_global_zero else file
        clock.begin("build")
        fabric.seed_everything(config["seed"], verbose=False)
        record = begun(config, identity, file.stem)
        logger = assemble.build(config["logger"] if fabric.is_global_zero else NO_LOGGER)
        if fabric.is_global_zero:
            clock.before = turn.begin()
            records.write(record, root)
        fabric.barrier()  # what was before may be in the way of the others
        try:
            with ending(record, root, logger, clock, stop, fabric.is_global_zero):
                logger.start(record, folder)
                fill(record, config, settings, data, fabric, file, folder, logger, clock, stop)
        except (Interrupted, Elsewhere) as stopped:
            leave_together(fabric, stop, stopped)
            raise
        if fabric.is_global_zero:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            print(f"{scores(record)}{unscored(record, file)}")
    return file


def begun(config: dict, identity: dict, name: str) -> dict:
    """A record of nothing measured yet."""
    return {
        "schema": records.VERSION,
        "id": name,
        "status": "running",
        "identity": identity,
        "config": config,
        "metrics": {"val": None, "test": None},
        "cost": dict.fromkeys(records.COST),
        "provenance": records.provenance() | {"precision": config["engine"]["precision"], "job": job()},
        "error": None,
        "sweep": config["sweep"],
    }


def told_again(record: dict, file: Path, folder: Path, config: dict) -> Path:
    assemble.build(config["logger"]).again(record, file, folder, partial(assemble.examples, config))
    print(f"finished before; force=true runs it again\n{scores(record)}{unscored(record, file)}")
    return file


NO_LOGGER = {"_target_": "vltune.loggers.none.NoLogger"}


def prepare(config: dict) -> tuple[assemble.Data, dict]:
    """The data, made first where it can be made, and which run this is.  Raises UserError where a file is missing."""
    weights = assemble.fingerprint_of_weights(assemble.weight_files(config))
    assemble.make_data(config)
    data = assemble.open_data(config)
    return data, identify(config, weights, data.fingerprint)


def fill(
    record: dict,
    config: dict,
    settings: Settings,
    data: assemble.Data,
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
    model = assemble.build_model(config, data.facts)
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
    logger.table(predictions, partial(assemble.examples, config))
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
        batch = assemble.protocol(config, model)
        record["cost"] |= inference(model, batch, settings.eval_batch_size) | macs.macs(model.cpu(), batch)


def keep_features(
    fabric: Fabric, model: Model, data: assemble.Data, splits: set[str], settings: Settings, stop: StopRequest
) -> None:
    """Has what frozen towers make of the splits' images and texts read from files, written first where there are none."""
    from vltune.engine.features import attach

    readers = [reader for split in sorted(splits) if (reader := data.split(split)) is not None]
    attach(fabric, model.backbone, readers, data.collate, Path(settings.features_dir), settings.workers, stop)


def score(
    fabric: Fabric,
    model: Model,
    data: assemble.Data,
    split: str,
    settings: Settings,
    stop: StopRequest,
    bad: BadExamples,
    label: str,
    folder: Path,
) -> list[dict]:
    """Prediction rows of a split, none where there is no such split.  folder: for what a stopped run goes on from."""
    from torch.utils.data import Subset

    from vltune.engine.evaluate import predict
    from vltune.engine.memory import is_out_of_memory
    from vltune.engine.retrieval import score_pairs

    dataset = data.split(split)
    if dataset is None:
        return []
    how = data.collate, data.eval_batch_size, settings.workers, stop, bad, label
    if settings.eval_examples is not None:
        dataset = Subset(dataset, range(min(settings.eval_examples, len(dataset))))
    try:
        if not model.task.pairs:
            return predict(fabric, model, dataset, *how)
        folder.mkdir(parents=True, exist_ok=True)
        scores = score_pairs(fabric, model, dataset, *how, file=folder / f"{split}.scores")
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{label}: out of memory with engine.eval_batch_size={data.eval_batch_size}: lower it and give the command "
            "again; it goes on from what is trained"
        ) from None
    return model.task.rows(scores, dataset.owner, range(len(dataset.images)), range(len(dataset.captions)))


def inference(model: Model, batch: dict, batch_size: int) -> dict:
    """Latency of one example in milliseconds, and examples a second in batches."""
    from vltune.costs import usage

    many = usage.spread(usage.inference(model, usage.repeat(batch, batch_size), repeats=6))
    return {
        "latency_ms": usage.spread(usage.inference(model, batch)),
        "throughput_per_s": 1000 * batch_size / many["median"],
    }


@contextmanager
def ending(record: dict, root: Path, logger, clock: Clock, stop: StopRequest, writes: bool) -> Iterator[None]:
    """However a run ends, its record says so and its logger is closed with the right exit status."""
    exit_code = FAILED
    try:
        yield
        record["status"], exit_code = "finished", 0
    except (Interrupted, Elsewhere, KeyboardInterrupt) as stopped:
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


class Clock:
    """Seconds by phase, from the start on and wherever a phase is under way; `before` are those of earlier processes that
    this one resumes."""

    def __init__(self):
        self.before, self.laps = 0.0, {}
        self.phase, self.began = "data", time.monotonic()

    def begin(self, phase: str) -> None:
        self.end()
        self.phase, self.began = phase, time.monotonic()

    def end(self) -> None:
        if self.phase:
            self.laps[self.phase] = round(time.monotonic() - self.began, 2)
        self.phase = None

    def total(self) -> float:
        under_way = time.monotonic() - self.began if self.phase else 0.0
        return round(self.before + sum(self.laps.values()) + under_way, 2)


def make_fabric(settings: Settings) -> Fabric:
    """Not launched: other processes are not started yet."""
    import torch
    from lightning_fabric import Fabric

    if settings.threads:
        torch.set_num_threads(settings.threads)
    with warnings.catch_warnings():
        if settings.devices * settings.nodes == 1:  # which needs none
            warnings.filterwarnings("ignore", "The `srun` command is available on your system but is not used")
        return Fabric(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            precision=settings.precision,
        )


def evaluate(config: dict, overrides: list[str]) -> Path:
    """Scores the tuned model of a record again, and shows both figures."""
    from omegaconf import OmegaConf

    from vltune.engine import artifacts
    from vltune.engine.source import BadExamples

    if config["from"] is None:
        raise UserError("mode=eval: say which record, from=results/records/.../NAME.json")
    file = Path(config["from"])
    record = records.read(file)
    if record["status"] != "finished":
        raise UserError(f"{file}: the run is {record['status']}; only a finished one has a tuned model")
    mine = [override for override in overrides if not override.startswith(("mode=", "from="))]
    config = OmegaConf.to_container(OmegaConf.merge(record["config"], OmegaConf.from_dotlist(mine)))
    data, identity = prepare(config)
    if identity["hash"] != record["identity"]["hash"]:
        raise UserError(
            f"{file}: another configuration, other data or other weights than the record's "
            f"({identity['hash']} for {record['identity']['hash']})"
        )
    settings = assemble.settings(config)
    fabric = make_fabric(settings)
    fabric.launch()
    fabric.seed_everything(config["seed"], verbose=False)
    model = assemble.build_model(config, data.facts)
    artifacts.read_tuned(file.with_suffix(".safetensors"), model)
    model.to(fabric.device)
    bad = BadExamples(config["dataset"]["max_bad_examples"])
    with StopRequest() as stop, TemporaryDirectory() as folder:
        if settings.cache_features:
            keep_features(fabric, model, data, set(settings.evaluate), settings, stop)
        for split in settings.evaluate:
            rows = score(fabric, model, data, split, settings, stop, bad, split, Path(folder))
            for name, value in (model.task.metrics(rows) if rows else {}).items():
                print(f"{split} {name}: {value:.2f} now, {record['metrics'][split][name]:.2f} recorded")
    return file


def cost(config: dict, overrides: list[str]) -> Path:
    """Parameters and MACs of a method on a backbone and task; neither data nor weights are read."""
    from vltune.costs import macs

    clock, root = Clock(), Path(config["results_dir"])
    model = assemble.build_model(config, assemble.facts(config), pretrained=False)
    measured = macs.parameters(model) | macs.macs(model, assemble.protocol(config, model))
    identity = identify(config, None, "")
    record = begun(config, identity, records.path(root, identity, "costs").stem) | {"status": "finished"}
    record["cost"] |= measured
    record["provenance"]["seconds"] = clock.total()
    for name, value in record["cost"].items():
        if value is not None:
            print(f"{name:30} {value:>18,}")
    return records.write(record, root, "costs")


def scores(record: dict) -> str:
    """One line a person reads at the end of a run."""
    metrics = [
        f"{split} {name} {value:.2f}"
        for split, figures in record["metrics"].items()
        for name, value in (figures or {}).items()
    ]
    if trial := record["config"]["engine"].get("eval_examples"):
        metrics.append(f"a trial on the first {trial} examples of each split")
    costs = record["cost"]
    if costs["method_params"] is not None:
        metrics.append(f"{costs['method_params']:,} method parameters")
    if costs["additional_macs"] is not None:
        metrics.append(f"{costs['additional_macs']:,} additional MACs")
    return f"{record['identity']['method']}: " + ", ".join(metrics)


def unscored(record: dict, file: Path) -> str:
    """A line for each split that was predicted and whose truth is not published."""
    config, metrics = record["config"], record["metrics"]
    return "".join(
        f"\n{split} has no score: its answers are not published; vltune submission {file} writes what the server scores"
        for split in config["engine"]["evaluate"]
        if metrics[split] is None and config["dataset"][split]
    )
