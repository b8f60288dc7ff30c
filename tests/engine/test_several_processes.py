"""Processes of one run: stopped together, resumed to the same."""

import signal

import pytest
import tiny
import torch
from several import processes
from test_training import Examples, collate, make_model, settings

from vltune.engine.source import TrainingData
from vltune.engine.train import train
from vltune.evaluators.evaluate import predictions
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

    assert processes(work) == [Interrupted if asked else list(range(examples))] * 2
