"""Time and memory are those of the device that computed."""

import pytest
import torch

from vltune.costs import usage
from vltune.engine.lap import Laps


def test_memory_of_a_run_on_the_cpu_is_the_processes_whatever_else_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *device: 0)
    usage.reset_peak_memory(torch.device("cpu"))
    held = torch.ones(50_000_000)
    assert usage.peak_memory_bytes(torch.device("cpu")) > held.nbytes


@pytest.mark.parametrize(("device", "waited"), [("mps", 2), ("cpu", 0)])
def test_a_device_that_computes_by_itself_is_waited_for(device, waited, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: calls.append(device))
    laps = Laps(torch.device(device))
    with laps.piece():
        pass
    assert len(calls) == waited
    assert laps.milliseconds() >= 0


def test_the_first_tenth_of_times_is_left_out_and_the_95th_percentile_is_a_measured_one():
    assert usage.spread([1000.0, 1000.0, *map(float, reversed(range(18)))]) == {"median": 8.5, "p95": 17.0}
    assert usage.spread([3.0]) == {"median": 3.0, "p95": 3.0}
    assert usage.spread([]) is None
