"""The logger that keeps nothing takes the same calls as the others."""

import inspect

import pytest

from vltune.loggers.logger import Logger
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


@pytest.mark.parametrize("logger", [NoLogger, WandbLogger])
def test_a_logger_takes_the_calls_of_the_contract(logger):
    assert issubclass(logger, Logger)
    for call in Logger.__abstractmethods__:
        of_contract, own = (inspect.signature(getattr(kind, call)) for kind in (Logger, logger))
        assert own.parameters.keys() == of_contract.parameters.keys()
