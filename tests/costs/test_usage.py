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
