"""What a run is given that memory did not suffice for."""

from types import SimpleNamespace

import pytest

from vltune.engine.memory import WHOLE
from vltune.sweep.commands import again


def standing(cause="memory", error="out of memory at step 3", halved=(), **engine):
    settings = {"batch_size": 256, "micro_batch_size": None, "eval_batch_size": 64, "devices": 1, "nodes": 1} | engine
    run = SimpleNamespace(command="run.py", overrides=[], devices=1, nodes=1)
    record = {"config": {"engine": settings}, "error": error, "out_of_memory": list(halved)}
    return SimpleNamespace(run=run, cause=cause, record=record)


@pytest.mark.parametrize(
    ("found", "given"),
    [
        (standing(), ["engine.micro_batch_size=128"]),
        (standing(devices=2, nodes=2), ["engine.micro_batch_size=32"]),
        (standing(batch_size=100, micro_batch_size=25), ["engine.micro_batch_size=10"]),
        (standing(halved=[{"step": 3, "micro_batch": 8}]), ["engine.micro_batch_size=4"]),
        (standing(batch_size=1), ["engine.micro_batch_size=1"]),
        (
            standing(error="test: out of memory with engine.eval_batch_size=64: lower it"),
            ["engine.eval_batch_size=32"],
        ),
        (standing(cause="process"), []),
        (standing(error="out of memory at step 3: lower engine.batch_size, which is computed as a whole"), []),
    ],
)
def test_a_part_that_divides_what_a_device_takes(found, given):
    assert again(found).overrides == given


@pytest.mark.parametrize(
    "config", [{"mode": "pretrain"}, {"mode": "train", "task": {"_target_": "vltune.tasks.matching.Matching"}}]
)
def test_a_batch_that_is_computed_as_a_whole_is_not_parted(config):
    """SLURM ends such a run without a word of its own."""
    found = standing(error="")
    found.record["config"] |= config
    assert again(found).overrides == []


def test_nor_where_the_model_alone_needs_too_much():
    assert again(standing(error=f"out of memory, {WHOLE}")).overrides == []
