"""Processes of one run: stopped together, resumed to the same."""

import signal
import time
from contextlib import ExitStack, contextmanager
from itertools import cycle
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
import tiny
import torch
from lightning_fabric import Fabric
from several import processes
from test_training import Examples, collate, make_model, settings, without_dropout
from torch.distributed import ProcessGroup
from torch.utils._python_dispatch import TorchDispatchMode

from vltune.backbones.vilt import Vilt
from vltune.engine.meeting import SECONDS
from vltune.engine.source import BadExamples, TrainingData
from vltune.engine.train import Training, train
from vltune.errors import BadExampleError
from vltune.evaluators.evaluate import predictions, validate
from vltune.experiment.setup import make_fabric
from vltune.methods.vera import VeRA
from vltune.runs import together
from vltune.runs.signals import Interrupted, StopRequest

ONE = 1  # of two, which alone gets the signal


class Signalled(Examples):
    """Sends its process a signal when the so-manyth example is read."""

    def __init__(self, count, at):
        self.count, self.at, self.read = count, at, 0

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        self.read += 1
        if self.read == self.at:
            signal.raise_signal(signal.SIGUSR1)
        return super().__getitem__(key if isinstance(key, tuple) else (key, 0))


def trained(path, stop_at=None, **more):
    """Each process's last step and tuned parameters; of a stopped run its exit status and the step of its checkpoint."""

    def work(fabric):
        fabric.launch()
        model, chosen = make_model(), settings(**more)
        torch.manual_seed(fabric.global_rank)  # texts of other lengths draw other numbers in each process
        at = 4 * (stop_at - 1) + 1 if stop_at and fabric.global_rank == ONE else None
        data = TrainingData(Signalled(48, at), collate, chosen.batch_size, seed=0, workers=0)
        with StopRequest() as stop:
            session = tiny.session(fabric, model, path, stop, training=lambda: data, settings=chosen)
            try:
                done = train(session, lambda: 0.0)
            except Interrupted as stopped:
                fabric.barrier()
                return stopped.exit_code, torch.load(path / "last.pt")["training"]["step"]
        return done.step, {name: tensor.tolist() for name, tensor in model.tuned_state().items()}

    return processes(work)


def test_one_that_is_asked_stops_all_and_they_resume_bit_for_bit(tmp_path):
    """Dropout is on, so the random state of both is in it."""
    straight, _ = trained(tmp_path / "straight")
    assert trained(tmp_path / "stopped", stop_at=5) == [(128 + signal.SIGUSR1, 5)] * 2
    first, second = trained(tmp_path / "stopped")
    assert first == second == straight
    assert straight[0] == 12


def test_between_two_points_of_the_log_all_stop_after_the_same_step(tmp_path):
    """They meet twice a second, and this run's 400 steps take longer than that."""
    (first, at), second = trained(tmp_path, stop_at=2, max_steps=10_000)
    assert (first, at) == second
    assert first == 128 + signal.SIGUSR1
    assert 2 <= at < 200, "well before the first point of the log"


class Synchronised(TorchDispatchMode):
    """Counts the times that training waits for a device, which here is the CPU: `reads` of tensors, and `collectives`; and
    those of the hosts, `agreed`.

    Left out is what a batch is arranged by before it leaves the host, and what DDP does in the backward pass."""

    def __init__(self):
        super().__init__()
        self.reads = self.collectives = self.agreed = 0
        self.counts = True

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        if self.counts:
            self.reads += function is torch.ops.aten._local_scalar_dense.default
            if function.namespace == "c10d":
                self.agreed += among_hosts(arguments)
                self.collectives += not among_hosts(arguments)
        return function(*arguments, **(more or {}))

    def aside(self, call, *arguments, **more):
        before, self.counts = self.counts, False
        try:
            return call(*arguments, **more)
        finally:
            self.counts = before

    def read(self, call, *arguments, **more):
        self.reads += self.counts
        return self.aside(call, *arguments, **more)

    @contextmanager
    def counting(self):
        """Reads that on a CPU go past the dispatcher are told by their names."""

        def named(owner, name, count):
            call = getattr(owner, name)
            return patch.object(owner, name, lambda *arguments, **more: count(call, *arguments, **more))

        with ExitStack() as patches:
            for owner, name in ((Vilt, "arrange"), (Fabric, "backward")):
                patches.enter_context(named(owner, name, self.aside))
            for name in ("tolist", "cpu", "numpy"):
                patches.enter_context(named(torch.Tensor, name, self.read))
            patches.enter_context(self)
            yield self


def among_hosts(arguments):
    """Whether a collective is of the group that talks from host to host."""
    boxed = [each for each in arguments if isinstance(each, torch.ScriptObject) and "ProcessGroup" in str(each._type())]
    return together.hosts().group_name in [ProcessGroup.unbox(each).group_name for each in boxed]


INTERVALS = 50  # between two points of the log


def waits(path, steps, added=lambda training: None, method=None):
    """Of so many steps in each process: reads of the device, its collectives, those of the hosts, and seconds.

    added: called before each step.  method: another than LoRA."""

    def work(fabric):
        fabric.launch()
        chosen = settings(max_steps=steps)
        data = TrainingData(Examples(), collate, chosen.batch_size, seed=0, workers=0)
        read = list(data.batches(0, 12, 1, fabric.global_rank, fabric.world_size))
        data.batches = lambda *_: cycle(read)
        with StopRequest() as stop:
            model = without_dropout() if method is None else make_model(method, dropout=0.0)
            session = tiny.session(fabric, model, path, stop, training=lambda: data, settings=chosen)
            training, began = Training(session, lambda: 0.0), time.monotonic()
            with Synchronised().counting() as counted:
                while training.state.step < training.total:
                    added(training)
                    training.step()
                    training.meet()
        return counted.reads, counted.collectives, counted.agreed, time.monotonic() - began

    return processes(work, make=lambda world: make_fabric(settings(devices=world)))


def test_the_device_is_waited_for_once_between_two_points_of_the_log(tmp_path):
    """The hosts agree there, and about twice a second once the pace of the steps is known.  DDP tells twice, in the second
    step, in which order gradients come."""
    for reads, collectives, agreed, seconds in waits(tmp_path, 4 * INTERVALS):
        assert (reads, collectives) == (INTERVALS, 2)
        assert agreed <= 2 * INTERVALS + seconds / SECONDS + 9


def test_what_a_method_holds_and_does_not_train_is_not_sent_at_each_step(tmp_path):
    """VeRA's two matrices, that all its sites share."""
    assert [counts[:2] for counts in waits(tmp_path, INTERVALS, method=VeRA(rank=8))] == [(INTERVALS, 2)] * 2


@pytest.mark.parametrize(
    ("which", "added"),
    [
        (0, lambda training: float(training.model.head_parameters[0].sum())),
        (0, lambda training: training.model.head_parameters[0].detach().cpu()),
        (1, lambda training: training.fabric.barrier()),
        (1, lambda training: training.fabric.all_reduce(torch.zeros(1))),
        (2, lambda training: training.session.stop.share(training.fabric)),
    ],
    ids=["number", "copy", "barrier", "mean", "stop"],
)
def test_what_waited_at_each_step_would_be_counted(tmp_path, which, added):
    """The test above would fail."""
    for counts in waits(tmp_path, 2 * INTERVALS, added):
        assert counts[which] >= (1, 0, 2)[which] * INTERVALS + 2 * INTERVALS


@pytest.mark.parametrize("examples", [5, 6, 9])  # in batches of 2: one batch more for the first process, or as many
@pytest.mark.parametrize("asked", [True, False])
def test_one_that_is_asked_while_they_predict_stops_all(tmp_path, examples, asked):
    def work(fabric):
        fabric.launch()
        data = Signalled(examples, 1 if asked and fabric.global_rank == ONE else None)
        with StopRequest() as stop:
            session = tiny.session(fabric, make_model(), tmp_path, stop, split=lambda name: data, collate=collate)
            rows = predictions(session, "test")
        return [row["id"] for row in rows]

    assert processes(work) == ([Interrupted] * 2 if asked else [list(range(examples)), []])


class Holey(Examples):
    """One of its examples cannot be read."""

    def __len__(self):
        return 9

    def __getitem__(self, number):
        return {"bad": "example 2"} if number == 2 else super().__getitem__((number, 0))


def those_read(examples):
    read = [example for example in examples if "bad" not in example]
    batch = collate(read) if read else {"ids": []}
    return batch | {"bad": [example["bad"] for example in examples if "bad" in example]}


def test_a_process_whose_part_of_a_step_cannot_be_read_ends_and_holds_up_no_other():
    def work(fabric):
        fabric.launch()
        chosen = settings(batch_size=4)

        def read(examples):
            batch = collate(examples)
            lost = fabric.global_rank == ONE
            return {"ids": [], "bad": ["example 3"]} if lost else batch

        data = TrainingData(Examples(), read, chosen.batch_size, seed=0, workers=0)
        with StopRequest() as stop:
            more = {"training": lambda: data, "settings": chosen, "allowed": 9}
            train(tiny.session(fabric, make_model(), "nowhere", stop, **more), lambda: 0.0)

    first, second = processes(work)
    assert second is BadExampleError
    assert issubclass(first, Exception)


class HoleyTraining(Examples):
    """One of its examples cannot be read."""

    def __getitem__(self, key):
        return {"bad": "example 2"} if key[0] == 2 else super().__getitem__(key)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_an_example_that_one_process_cannot_read_leaves_all_with_the_same_weights(micro_batch_size):
    def work(fabric):
        fabric.launch()
        chosen = settings(max_steps=6, micro_batch_size=micro_batch_size)
        data, model = TrainingData(HoleyTraining(), those_read, 8, seed=0, workers=0), make_model()
        with StopRequest() as stop, TemporaryDirectory() as folder:
            more = {"training": lambda: data, "settings": chosen, "allowed": 1}
            train(session := tiny.session(fabric, model, folder, stop, **more), lambda: 0.0)
        return [*session.bad.seen], {name: tensor.tolist() for name, tensor in model.tuned_state().items()}

    (_, first), (_, second) = found = processes(work)
    assert [] in (seen := [each for each, _ in found])
    assert ["example 2"] in seen
    assert first == second


def test_bad_examples_of_all_processes_are_named_and_counted_together():
    def work(fabric):
        fabric.launch()
        few, many = BadExamples(1), BadExamples(2)
        for bad in (few, many):
            bad.note({"bad": [f"example {fabric.global_rank}"]})
        many.gather(fabric)
        with pytest.raises(BadExampleError, match=r"2 bad in all"):
            few.gather(fabric)
        return [*many.seen]

    assert processes(work) == [["example 0", "example 1"]] * 2


def test_the_first_process_puts_together_what_each_predicted(tmp_path):
    """In the order of the split, the same bits as one process alone, from files of which none is left; and all know the
    metric."""

    def work(fabric):
        fabric.launch()
        with StopRequest() as stop:
            more = {"split": lambda name: Holey(), "collate": those_read, "allowed": 1}
            session = tiny.session(fabric, without_dropout(), tmp_path, stop, **more)
            with patch.object(
                torch.distributed, "all_gather_object", wraps=torch.distributed.all_gather_object
            ) as sent:
                rows = predictions(session, "test")
                names = [call.args[1] for call in sent.call_args_list]
            return rows, validate(session), [name.rpartition(".")[2] for name in names]

    alone, metric, _ = work(Fabric(accelerator="cpu", devices=1))
    assert [row["id"] for row in alone] == [0, 1, 3, 4, 5, 6, 7, 8]
    assert processes(work) == [(alone, metric, ["part"]), ([], metric, ["part"])]
    assert not list(tmp_path.iterdir())
