"""The logger that keeps nothing takes the same calls as the others."""

import inspect

import pytest

from vltune.loggers.none import NoLogger
from vltune.loggers.wandb import WandbLogger


def test_writes_nothing(tmp_path):
    logger = NoLogger()
    logger.start({}, tmp_path)
    logger.log({"train/loss": 1.0}, step=1)
    logger.table({"test": []}, lambda split: None)
    logger.finish({}, tmp_path / "record.json", exit_code=0)
    logger.again({}, tmp_path / "record.json", tmp_path, lambda split: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["start", "log", "table", "finish", "again"])
def test_loggers_are_interchangeable(call):
    none, wandb = (inspect.signature(getattr(kind, call)) for kind in (NoLogger, WandbLogger))
    assert none.parameters.keys() == wandb.parameters.keys()
