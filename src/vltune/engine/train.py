"""The training loop."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from lightning_fabric import Fabric

from vltune.engine import checkpoint, memory
from vltune.engine.optimiser import adamw, linear_schedule, parameter_groups
from vltune.engine.order import accumulation_steps
from vltune.engine.settings import Settings
from vltune.engine.source import BadExamples, GeneratedData, TrainingData
from vltune.errors import UserError
from vltune.model import Model
from vltune.runs.progress import Progress
from vltune.runs.signals import Interrupted, StopRequest

HISTORY_POINTS = 50


@dataclass
class Progressed:
    """What training carries from step to step beside the parameters; saved in every checkpoint."""

    step: int = 0
    validated: int = 0  # the last step that was scored on validation, where select=best
    best: dict | None = None  # {"metric", "step", "state"}
    history: list[dict] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    micro_batch: int | None = None  # examples a forward pass of a device, once memory has run out
    halved: list[dict] = field(default_factory=list)  # {"step", "micro_batch"} of each time that it did


def train(
    fabric: Fabric,
    model: Model,
    data: TrainingData | GeneratedData,
    settings: Settings,
    file: Path,
    stop: StopRequest,
    bad: BadExamples,
    validate: Callable[[], float],
    log: Callable[[dict, int], None],
    label: str,
) -> Progressed:
    """Trains `model` in place, from the checkpoint `file` on where there is one.

    validate: the metric on the validation split, larger is better.  log: takes (values, optimiser step).
    """
    total = settings.total_steps(data.steps_per_epoch)
    fusion = settings.lr * settings.fusion_lr_multiplier
    rates_of = [(settings.rate_of_head, model.head_parameters), (fusion, model.fusion_parameters), (settings.lr, [])]
    groups = parameter_groups(model, rates_of, settings.weight_decay)
    rates = [group["lr"] for group in groups]
    factor = linear_schedule(settings.warmup, total)
    wrapped, optimiser = fabric.setup(model, adamw(groups, settings.betas, settings.eps))
    seed = torch.initial_seed()
    at = resume(file, model, optimiser)
    for point in at.history:  # a logger may lack what an interrupted process logged
        log(point, point["step"])
    share = settings.batch_size // fabric.world_size
    micro = min(size for size in (at.micro_batch, settings.micro_batch_size, share) if size is not None)
    accumulation = accumulation_steps(settings.batch_size, micro, fabric.world_size)
    progress = Progress(label, total, at.step, show=fabric.is_global_zero)
    saved, every = time.monotonic(), max(1, total // HISTORY_POINTS)
    model.train()

    def save() -> None:
        if fabric.is_global_zero:
            stop.may_write()
            checkpoint.save(file, state_of(at, model, optimiser))

    def choose() -> None:
        """Keeps the best on validation.  A stop in the middle saves first, and the resumed run validates again."""
        due = at.step % (settings.val_every * data.steps_per_epoch) == 0 or at.step == total
        if settings.select != "best" or not due or at.validated == at.step:
            return
        try:
            metric = validate()
        except Interrupted:
            save()
            raise
        at.validated = at.step
        at.history.append({"step": at.step, f"val/{model.task.metric}": metric})
        log(at.history[-1], at.step)
        if at.best is None or metric > at.best["metric"]:
            state = {name: tensor.cpu().clone() for name, tensor in model.tuned_state().items()}
            at.best = {"metric": metric, "step": at.step, "state": state}
        model.train()

    def forward_and_backward() -> tuple[float, list, float]:
        """One step's gradients: its loss over all devices, its examples here, and the seconds that it took."""
        loss, ids, seconds = torch.zeros((), device=fabric.device), [], 0.0
        for i in range(accumulation):
            batch = next(stream)
            bad.note(batch)
            if not batch["ids"]:
                continue
            ids += batch["ids"]
            began = time.perf_counter()
            batch = fabric.to_device(batch)
            with fabric.no_backward_sync(wrapped, enabled=i + 1 < accumulation):
                part = model.task.loss(wrapped(batch), batch)
                penalty = model.tuning.penalty()
                part = (part if penalty is None else part + penalty) / accumulation
                fabric.backward(part)
            loss += part.detach()
            seconds += time.perf_counter() - began
        return float(fabric.all_reduce(loss)), ids, seconds

    def halve() -> None:
        """Memory has run out: the step is taken anew in smaller parts, the same examples in all."""
        at.micro_batch = memory.smaller(share // accumulation, share)
        if at.micro_batch is None or fabric.world_size > 1 or not data.divisible:
            raise UserError(
                f"out of memory at step {at.step + 1} with {share // accumulation} examples at a time: lower "
                "engine.micro_batch_size (the effective batch stays the same; dropout draws anew)"
            )
        at.halved.append({"step": at.step + 1, "micro_batch": at.micro_batch})
        print(f"{label}: out of memory, going on with {at.micro_batch} examples at a time", file=sys.stderr)
        optimiser.zero_grad()
        torch.cuda.empty_cache()

    def first(count: int) -> Iterator[dict]:
        """Batches that a method looks at before it begins."""
        batches = data.batches(0, total, accumulation, fabric.global_rank, fabric.world_size)
        return map(fabric.to_device, islice(batches, count))

    stream = None
    try:
        if at.step == 0:
            model.tuning.start(model, first)
        while at.step < total:
            choose()
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor(at.step)
            if stream is None:
                stream = data.batches(at.step, total, accumulation, fabric.global_rank, fabric.world_size)
            model.tuning.at(at.step, total)
            if fabric.world_size > 1:  # a checkpoint holds the random state of one process
                torch.manual_seed((seed * total + at.step) * fabric.world_size + fabric.global_rank)
            try:
                loss, ids, seconds = forward_and_backward()
            except RuntimeError as error:
                if not memory.is_out_of_memory(error):
                    raise
                stream = None
            if stream is None:  # not where the error is caught: until there it holds the step's tensors
                halve()
                accumulation = share // at.micro_batch
                continue
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss is {loss} at step {at.step + 1} with the rate {settings.lr * factor(at.step):g} "
                    f"(engine.lr={settings.lr}), in a batch of the examples {', '.join(map(str, ids[:8]))}"
                    f"{f' and {len(ids) - 8} more' if len(ids) > 8 else ''}: lower engine.lr, or set engine.clip"
                )
            began = time.perf_counter()
            if settings.clip is not None:
                fabric.clip_gradients(wrapped, optimiser, max_norm=settings.clip)
            optimiser.step()
            optimiser.zero_grad()
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            at.step_ms.append(1000 * (seconds + time.perf_counter() - began))
            at.step += 1
            progress.step()
            if at.step % every == 0 or at.step == total:
                at.history.append({"step": at.step, "train/loss": loss, "train/lr": settings.lr * factor(at.step - 1)})
                log(at.history[-1], at.step)
                progress.step(0, loss=loss)
            asked = stop.share(fabric)
            if asked or time.monotonic() - saved > settings.checkpoint_seconds:
                save()
                saved = time.monotonic()
            if asked:
                stop.leave()
        choose()
        save()
    finally:
        progress.close()
    if at.best is not None:
        model.load_tuned(at.best["state"])
    model.eval()
    return at


def state_of(at: Progressed, model: Model, optimiser: torch.optim.Optimizer) -> dict:
    return {
        "progressed": vars(at),
        "model": model.tuned_state(),
        "optimiser": optimiser.state_dict(),
        "random": checkpoint.random_state(),
    }


def resume(file: Path, model: Model, optimiser: torch.optim.Optimizer) -> Progressed:
    state = checkpoint.load(file)
    if state is None:
        return Progressed()
    try:
        model.load_tuned(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{file}: is of another run ({error}); delete it to start over") from None
    checkpoint.set_random_state(state["random"])
    return Progressed(**state["progressed"])
