"""Several processes meet after the same steps, about twice a second, on their hosts."""

import signal

import pytest

from vltune.engine import meeting
from vltune.engine.meeting import Meetings
from vltune.runs.signals import StopRequest
from vltune.runs.together import ALONE, Alone

TWO = Alone(world_size=2)  # of which the other one is played


@pytest.fixture
def clock(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(meeting.time, "monotonic", lambda: seconds[0])
    return seconds


def meetings(monkeypatch, step=0, other=(0, 0, 0)):
    """other: what the other process says of a stop, of a checkpoint and of its pace."""

    def largest(processes, *values):
        return [max(pair) for pair in zip(values, other, strict=True)]

    monkeypatch.setattr(meeting, "largest", largest)
    return Meetings(TWO, StopRequest(), lambda: False, step)


def planned(made, start):
    """How many steps the next meeting is after."""
    return next(steps for steps in range(1, 10_000_000) if made.due(start + steps))


@pytest.mark.parametrize(("seconds_a_step", "steps"), [(0.01, 50), (0.2, 2), (0.6, 1), (30.0, 1)])
def test_the_pace_of_the_steps_says_after_how_many(monkeypatch, clock, seconds_a_step, steps):
    made, at = meetings(monkeypatch, step=100), 101
    assert made.due(at)
    for _ in range(8):
        clock[0] += (at - made.last) * seconds_a_step
        made.hold(at)
        at += planned(made, at)
    assert at - made.last == steps


def test_a_meeting_at_a_point_of_the_log_begins_nothing_anew(monkeypatch, clock):
    made = meetings(monkeypatch, other=(0, 0, 0.001))
    for at in range(1, 400):
        if made.due(at):
            made.hold(at)
    made.hold(401)
    made.hold(402)
    assert planned(made, 402) == 500


def test_a_host_that_seems_fast_is_not_believed_at_once(monkeypatch, clock):
    """It has only told its device what to do."""
    made, at, found = meetings(monkeypatch), 1, []
    for _ in range(4):
        made.hold(at)
        found.append(planned(made, at))
        at += found[-1]
    assert found == [2, 4, 8, 16]


def test_the_answer_is_by_the_pace_of_the_slowest(monkeypatch, clock):
    made = meetings(monkeypatch, other=(0, 0, 0.25))
    clock[0] = 0.1
    made.hold(10)
    made.hold(20)
    assert planned(made, 20) == 2


def test_where_another_has_to_save_all_do(monkeypatch, clock):
    assert meetings(monkeypatch, other=(0, 1, 0)).hold(1) == (False, True)


def test_a_lone_process_meets_itself_where_it_is_asked_or_late(clock):
    late = [False]
    made = Meetings(ALONE, stop := StopRequest(), lambda: late[0], step=0)
    assert not any(map(made.due, range(1000)))
    late[0] = True
    assert made.due(1) and made.hold(1) == (False, True)
    late[0] = False
    stop.signum = signal.SIGTERM
    assert made.due(2) and made.hold(2) == (True, False)
