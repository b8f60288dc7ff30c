"""The logger that keeps nothing takes the same calls as the others."""

import inspect

import pytest

from vltune.loggers.none import NoLogger
from vltune.loggers.wandb import WandbLogger


def test_writes_nothing(tmp_path):
    logger = NoLogger()
    logger.start({"seed": 0}, {}, tmp_path, group=None)
    logger.log({"train/loss": 1.0}, step=1)
    logger.finish({}, exit_code=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["start", "log", "finish"])
def test_loggers_are_interchangeable(call):
    assert inspect.signature(getattr(NoLogger, call)) == inspect.signature(getattr(WandbLogger, call))
