"""Several processes meet after the same steps, about twice a second."""

from types import SimpleNamespace

import pytest
import torch

from vltune.engine import meeting
from vltune.engine.meeting import Meetings


@pytest.fixture
def clock(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(meeting.time, "monotonic", lambda: seconds[0])
    return seconds


def processes(world, reduce=lambda tensor: tensor):
    return SimpleNamespace(world_size=world, device=torch.device("cpu"), all_reduce=reduce)


@pytest.mark.parametrize(("seconds_a_step", "steps"), [(0.01, 50), (0.2, 2), (0.6, 1), (30.0, 1), (0.0, 500_000)])
def test_the_pace_of_the_steps_says_after_how_many(clock, seconds_a_step, steps):
    made = Meetings(processes(2), step=100)
    assert made.due(101)
    clock[0] += 3 * seconds_a_step
    made.plan(103)
    assert [made.due(103 + steps - 1), made.due(103 + steps)] == [steps == 0, True]


def test_the_answer_is_by_the_pace_of_all_and_not_by_the_own_clock(clock):
    made = Meetings(processes(2, reduce=lambda tensor: torch.full_like(tensor, 0.25)), step=0)
    clock[0] = 99.0
    made.plan(1)
    assert [made.due(2), made.due(3)] == [False, True]


def test_a_lone_process_waits_for_nobody(clock):
    def reduce(tensor):
        raise AssertionError("asks others")

    made = Meetings(processes(1, reduce), step=0)
    made.plan(1)
    assert not any(map(made.due, range(1000)))
