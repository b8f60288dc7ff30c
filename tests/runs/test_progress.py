"""How far work is, for who asks from outside."""

import pytest

from vltune.runs import progress
from vltune.runs.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(progress, "_innermost", None)
    return seconds


def test_steps_the_rate_and_the_time_left_are_told(clock):
    made = Progress("test", 100, start=40, show=False)
    assert progress.state() == {"step": 40, "total": 100, "unit": "step", "rate": 0.0, "left_s": None}
    for clock[0] in (2, 4):
        made.step(10)
    assert progress.state() == {"step": 60, "total": 100, "unit": "step", "rate": 5.0, "left_s": 8.0}


def test_the_rate_is_that_of_recent_steps(clock):
    made = Progress("test", 10_000, show=False)
    for _ in range(100):
        clock[0] += 2
        made.step()
    for _ in range(progress.RECENT):
        clock[0] += 2
        made.step(8)
    assert progress.state()["rate"] == 4.0
    clock[0] += 2 * (progress.RECENT - 1)  # as long again without a step
    assert progress.state()["rate"] == 2.0


def test_the_innermost_work_is_told_and_nothing_where_there_is_none(clock):
    assert progress.state() == {}
    around = Progress("training", 12, start=6, show=False)
    within = Progress("validation", 3, unit="batch", show=False)
    assert progress.state()["unit"] == "batch"
    within.close()
    assert progress.state()["step"] == 6
    around.close()
    assert progress.state() == {}


def test_a_line_now_and_then_where_there_is_no_terminal(clock, capsys):
    made = Progress("training", 100)
    for clock[0] in (10, 20, 30):
        made.step(10, loss=0.5)
    assert capsys.readouterr().err == "training: 20/100 steps, loss 0.5, 1.0 steps/s, 80 s left\n"
