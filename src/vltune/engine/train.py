"""The training loop: what an optimiser step does, and what happens between two of them."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from vltune.batch import Batch
from vltune.engine import checkpoint, memory, seen, sharded
from vltune.engine.compile import compiled, untraced
from vltune.engine.lap import Laps
from vltune.engine.meeting import Meetings
from vltune.engine.optimiser import adamw, parameter_groups, rates, schedule
from vltune.engine.order import accumulation_steps
from vltune.engine.session import Session
from vltune.errors import BadExampleError, UserError
from vltune.model import Model
from vltune.nn.recompute import recompute
from vltune.runs.progress import Progress
from vltune.runs.signals import Interrupted
from vltune.runs.together import mean

HISTORY_POINTS = 50
CHECKPOINT = "last.pt"


@dataclass
class TrainingState:
    """What training carries from step to step beside the parameters; saved in every checkpoint."""

    step: int = 0
    validated: int = 0  # the last step that was scored on validation, where select=best
    best: dict | None = None  # {"metric", "step", "state"}
    history: list[dict] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    micro_batch: int | None = None  # examples a forward pass of a device, once memory has run out
    halved: list[dict] = field(default_factory=list)  # {"step", "micro_batch"} of each time that it did
    seen: dict = field(default_factory=dict)  # `engine.seen`


def train(session: Session, validate: Callable[[], float]) -> TrainingState:
    """Trains the session's model in place, from the checkpoint in its folder on where there is one.

    validate: what the task chooses by, on the validation split.  UserError where a loss is not a number, or memory does
    not hold one example; Interrupted, with a checkpoint, where the session is asked to stop."""
    if not any(parameter.requires_grad for parameter in session.model.parameters()):
        return untrained(session)
    with memory.holding(session.label):
        training = Training(session, validate)
    with closing(training.progress):
        training.start()
        while training.state.step < training.total:
            training.choose()
            if training.step():
                training.meet()
        training.choose()
        training.save()
    return training.end()


def untrained(session: Session) -> TrainingState:
    """Where a method trains nothing: no step, but what the task makes of the training examples."""
    session.fabric.strategy.precision.convert_module(session.model).to(session.fabric.device)
    if session.model.task.looks_at_data:
        look(session)
    session.model.eval()
    return TrainingState()


@torch.no_grad()
def look(session: Session) -> None:
    """Shows the task all training examples."""
    fabric, model = session.fabric, session.model
    model.eval()
    size = session.data.eval_batch_size
    examples = session.data.training().once(size)
    with memory.evaluating(session.label, size), fabric.autocast():
        model.task.look(model.backbone, map(session.to_device, examples))


def failure(session: Session, state: TrainingState) -> str | None:
    """What a person is told where training ended no better than a model that knows nothing."""
    losses = [point["train/loss"] for point in state.history if point.get("train/loss") is not None]
    last, chance = losses[-max(1, len(losses) // 10) :], session.model.task.chance_loss
    if not last or chance is None or (loss := sum(last) / len(last)) < chance:
        return None
    return (
        f"failed start: the loss ended at {loss:.2f}, and is {chance:.2f} where nothing is known; "
        "try another seed or a lower engine.lr"
    )


@dataclass
class Step:
    """A step whose figures are still on the device.  loss: of the examples `ids` of this process; norm: of the gradients
    before they were clipped, None where they are not."""

    loss: Tensor
    ids: list
    laps: Laps
    norm: Tensor | None = None


class Training:
    """The optimiser steps of one run.

    The host runs ahead of the device: what steps cost and how long they took is read at the points of the log, and before
    anything is validated or saved; so a loss that is not a number, which ends the run there, leaves nothing behind.
    Several processes agree on when to stop and to save by their hosts alone."""

    def __init__(self, session: Session, validate: Callable[[], float]):
        self.session, self.validate = session, validate
        self.fabric, self.settings, self.sharded = session.fabric, session.settings, sharded.is_sharded(session.fabric)
        self.model = sharded.copy_of(session.model, session.settings) if self.sharded else session.model
        self.data = session.data.training()
        self.total = self.settings.total_steps(self.data.steps_per_epoch)
        self.every = max(1, self.total // HISTORY_POINTS)  # steps between two points of the log
        groups = parameter_groups(self.model, rates(self.model, self.settings), self.settings.weight_decay)
        self.rates = [group["lr"] for group in groups]
        self.factor = schedule(self.settings.schedule, self.settings.warmup, self.total)
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        if self.settings.gradient_checkpointing:
            recompute(self.model)
        steps = compiled(self.model, self.settings.features_dir) if self.settings.compile else self.model
        self.wrapped, own = self.fabric.setup_module(steps), dict(self.model.named_parameters())  # shards are others
        groups = [group | {"params": [own[names[each]] for each in group["params"]]} for group in groups]
        self.optimiser = self.fabric.setup_optimizers(adamw(groups, self.settings.betas, self.settings.eps))
        self.seed = torch.initial_seed()
        self.file = session.folder / CHECKPOINT
        self.state = resume(self.file, self.model, self.optimiser)
        seen.restore(session, self.state.seen)
        if seen.moved(self.state.seen):
            self.state.step_ms.clear()
        batch_size = self.data.batch_size or self.settings.batch_size
        self.share = batch_size // self.fabric.world_size  # examples of a step in this process
        accumulation_steps(self.settings.batch_size, self.settings.micro_batch_size, self.fabric.world_size)  # as typed
        sizes = self.state.micro_batch, self.settings.micro_batch_size, self.share
        # Few training examples, or other devices than it was halved on, leave another share than it was to divide.
        micro_batch = memory.fitting(min(size for size in sizes if size is not None), self.share)
        self.accumulation = accumulation_steps(batch_size, micro_batch, self.fabric.world_size)
        self.stream: Iterator[dict] | None = None
        self.unread: list[Step] = []
        self.saved = time.monotonic()
        self.meetings = Meetings(self.fabric, session.stop, self.is_late, self.state.step)
        self.progress = Progress(session.label, self.total, self.state.step, show=self.fabric.is_global_zero)

    def start(self) -> None:
        """Before the first step of this process; the method may look at data before the first of the run."""
        for point in self.state.history:  # a logger may lack what an interrupted process logged
            self.session.logger.log(point, point["step"])
        self.model.train()
        model = self.session.model
        looks = model.task.looks_at_data, model.tuning.looks_at_data
        if self.state.step == 0 and any(looks):
            model.to(self.fabric.device)
            if looks[0]:
                look(self.session)
            if looks[1]:
                model.train()
                size = self.share // self.accumulation
                parts = memory.evaluating(self.session.label, size, "engine.micro_batch_size")
                with parts, self.fabric.autocast():
                    model.tuning.start(model, self.first_batches)
            decided = {name: tensor.cpu() for name, tensor in model.tuned_state().items()}
            decided = self.fabric.broadcast(decided)  # dropout drew other numbers in each process
            sharded.load_tuned(self.model, decided)
            self.rest()
            self.model.train()

    def first_batches(self, steps: int) -> Iterator[dict]:
        """What the first steps will see, the same in every process, in parts as large as a step's."""
        parts = self.accumulation * self.fabric.world_size
        batches = self.data.batches(0, self.total, parts, 0, 1)
        read = ([batch for batch in islice(batches, parts) if batch["ids"]] for _ in range(steps))
        return (self.session.to_device(part) | {"left": len(of) - i} for of in read for i, part in enumerate(of, 1))

    def batches(self, step: int) -> Iterator[dict]:
        """Micro-batches of this process from a step on."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return self.data.batches(step, self.total, self.accumulation, rank, world)

    def step(self) -> bool:
        """Whether a step was taken; where memory ran out, the same one is still to be taken, in smaller parts."""
        at = self.state.step
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(at)
        if self.stream is None:
            self.stream = self.batches(at)
        self.model.tuning.at(at, self.total)
        if self.fabric.world_size > 1:  # a checkpoint holds the random state of one process
            torch.manual_seed((self.seed * self.total + at) * self.fabric.world_size + self.fabric.global_rank)
        step = self.gradients()
        if step is None:  # not where the error is caught: until there it holds the step's tensors
            self.halve()
            return False
        with step.laps.piece(), memory.holding(self.session.label):
            if self.settings.clip is not None:
                norm = self.fabric.clip_gradients(
                    self.wrapped, self.optimiser, max_norm=self.settings.clip, error_if_nonfinite=False
                )
                step.norm = norm if step.ids else torch.zeros_like(step.loss)  # of no gradients it lies on no device
            self.optimiser.step()
            self.optimiser.zero_grad()
        self.unread.append(step)
        self.state.step += 1
        self.progress.step()
        return True

    def gradients(self) -> Step | None:
        """None where memory has run out."""
        try:
            return self.forward_and_backward()
        except Exception as error:
            if memory.is_out_of_memory(error):
                return None
            if (told := untraced(error) or sharded.mixed(error)) is not None:
                raise told from None
            raise

    def forward_and_backward(self) -> Step:
        """Of a process's examples those that can be read count as if they were all, in whatever micro-batches they come."""
        step, parts = Step(torch.zeros((), device=self.fabric.device), [], Laps(self.fabric.device)), []
        for batch in islice(self.stream, self.accumulation):
            self.session.bad.note(batch)
            if batch["ids"]:
                step.ids += batch["ids"]
                parts.append(batch)
            elif self.fabric.world_size > 1:  # the others would wait for its gradients
                none = f"none of {', '.join(batch['bad'])} can be read, which were a process's part of a step"
                raise BadExampleError(f"{none}; repair them, or train on one device")
        while parts:
            read = len((batch := parts.pop(0))["ids"])
            with step.laps.piece():
                batch = self.fabric.to_device(self.model.backbone.arrange(batch))  # by the copy that trains
                with self.fabric.no_backward_sync(self.wrapped, enabled=bool(parts)):
                    loss = self.loss(batch) / (len(step.ids) / read)
                    self.fabric.backward(loss)
                step.loss += loss.detach()
        return step

    def loss(self, batch: Batch) -> Tensor:
        """The task's, and what the method adds to it."""
        loss, penalty = self.model.task.loss(self.wrapped(batch), batch), self.model.tuning.penalty()
        return loss if penalty is None else loss + penalty

    def halve(self) -> None:
        """Memory has run out: the step is taken anew in smaller parts, the same examples in all."""
        state, size = self.state, self.share // self.accumulation
        self.stream = None
        state.micro_batch = memory.smaller(size, self.share)
        at = f"out of memory at step {state.step + 1} with {size} examples at a time"
        if not self.data.divisible or self.model.task.whole_batches:
            raise UserError(f"{at}: lower engine.batch_size, which is computed as a whole, so that it is another run")
        if state.micro_batch is None or self.fabric.world_size > 1:
            raise UserError(
                f"{at}: lower engine.micro_batch_size (the effective batch stays the same; dropout draws anew)"
            )
        state.halved.append({"step": state.step + 1, "micro_batch": state.micro_batch})
        fits = f"going on with {state.micro_batch} examples at a time"
        print(f"{self.session.label}: out of memory, {fits}", file=sys.stderr)
        self.accumulation = self.share // state.micro_batch
        self.optimiser.zero_grad()
        torch.cuda.empty_cache()

    def meet(self) -> None:
        """After a step: logs, and saves and leaves where a process is asked to, all processes after the same step."""
        at = self.state.step
        logs = at % self.every == 0 or at == self.total
        if not (logs or self.meetings.due(at)):
            return
        if logs:
            loss = self.read()
            self.log({"step": at, "train/loss": loss, "train/lr": self.settings.lr * self.factor(at - 1)})
            self.progress.step(0, **({} if loss is None else {"loss": loss}))
        stop, late = self.meetings.hold(at)
        if stop or late:
            self.save()
        if stop:
            self.session.stop.leave()

    def is_late(self) -> bool:
        """Whether the last checkpoint is older than it may become."""
        return time.monotonic() - self.saved > self.settings.checkpoint_seconds

    def log(self, point: dict) -> None:
        self.state.history.append(point)
        self.session.logger.log(point, point["step"])

    def read(self) -> float | None:
        """Waits for the device, once.  The last step's loss over all devices, None where it was read before or no example
        was; UserError for the first one since then that is not a number."""
        if not (unread := self.unread):
            return None
        self.unread, first = [], self.state.step - len(unread)
        figures = [[step.loss] if step.norm is None else [step.loss, step.norm] for step in unread]
        figures = torch.stack([torch.stack(sharded.whole(each)) for each in figures])
        figures = mean(self.fabric, figures.tolist())
        for number, (step, figure) in enumerate(zip(unread, figures, strict=True), first):
            for what, value in zip(("loss", "gradients' norm"), figure, strict=False):
                if not math.isfinite(value):
                    raise UserError(self.divergence(f"the {what} is {value}", number, step.ids))
        self.state.step_ms += [step.laps.milliseconds() for step in unread]
        return figures[-1][0] if unread[-1].ids else None

    def divergence(self, what: str, number: int, ids: list) -> str:
        return (
            f"{what} at step {number + 1} with the rate {self.settings.lr * self.factor(number):g} "
            f"(engine.lr={self.settings.lr}), in a batch of the examples {', '.join(map(str, ids[:8]))}"
            f"{f' and {len(ids) - 8} more' if len(ids) > 8 else ''}: lower engine.lr, or set engine.clip"
        )

    def choose(self) -> None:
        """Keeps the best on validation.  What ends it in the middle, a stop or what the user mends, saves first, and the
        resumed run validates again."""
        state, settings = self.state, self.settings
        due = state.step % (settings.val_every * self.data.steps_per_epoch) == 0 or state.step == self.total
        if settings.select != "best" or not due or state.validated == state.step:
            return
        self.read()
        self.settle()
        try:
            metric = self.validate()
        except (Interrupted, UserError) as ended:
            together = isinstance(ended, Interrupted) or self.fabric.world_size == 1  # processes fail alone
            if together and not isinstance(ended, BadExampleError):  # which a checkpoint would hold as seen
                self.save()
            raise
        state.validated, chosen_by = state.step, self.model.task.chosen_by
        self.log({"step": state.step, f"val/{chosen_by.name}": metric})
        if state.best is None or chosen_by.beats(metric, state.best["metric"]):
            tuned = {name: tensor.cpu().clone() for name, tensor in self.session.model.tuned_state().items()}
            state.best = {"metric": metric, "step": state.step, "state": tuned}
        self.model.train()
        self.rest()

    def save(self) -> None:
        self.read()
        self.saved = time.monotonic()
        self.state.seen = seen.by_all(self.session, self.state.seen)
        now = content(self.state, self.model, self.optimiser)
        if self.fabric.is_global_zero:
            self.session.stop.may_write()
            checkpoint.save(self.file, now)

    def settle(self) -> None:
        """Gives the session's model what was tuned, where a sharded copy of it is trained."""
        if self.sharded:
            self.session.model.load_tuned(sharded.whole(self.model.tuned_state()))
            self.session.model.tuning.at(max(0, self.state.step - 1), self.total)
            self.session.model.to(self.fabric.device)

    def rest(self) -> None:
        """Has the session's model leave the device to a sharded copy of it."""
        if self.sharded:
            self.session.model.cpu()

    def end(self) -> TrainingState:
        """Leaves the session's model as it is to be scored: the last, or the best on validation."""
        self.settle()
        if self.state.best is not None:
            self.session.model.load_tuned(self.state.best["state"])
        self.session.model.eval()
        return self.state


def content(state: TrainingState, model: Model, optimiser: torch.optim.Optimizer) -> dict:
    """Of a checkpoint; all processes call this together."""
    return {
        "training": vars(state),
        "model": sharded.whole(model.tuned_state()),
        "optimiser": sharded.whole(optimiser.state_dict()),
        "random": checkpoint.random_state(),
    }


def resume(file: Path, model: Model, optimiser: torch.optim.Optimizer) -> TrainingState:
    """What a checkpoint holds; where there is none, the state of a run that begins."""
    found = checkpoint.load(file)
    if found is None:
        return TrainingState()
    try:
        sharded.load_tuned(model, found["model"])
        sharded.load_optimiser(optimiser, found["optimiser"])
        state = TrainingState(**found["training"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{file}: is of another run ({error}); delete it to start over") from None
    checkpoint.set_random_state(found["random"])
    return state
