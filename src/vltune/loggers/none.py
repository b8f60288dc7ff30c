"""No logging service: the record is all that is kept."""

from pathlib import Path

from vltune.loggers.logger import Logger
from vltune.loggers.sample import Look


class NoLogger(Logger):
    """Accepts everything and keeps nothing."""

    def start(self, record: dict, folder: Path) -> None:
        pass

    def log(self, values: dict[str, float], step: int) -> None:
        pass

    def table(self, predictions: dict[str, list[dict]], look: Look) -> None:
        pass

    def finish(self, record: dict, file: Path, exit_code: int) -> None:
        pass

    def again(self, record: dict, file: Path, folder: Path, look: Look) -> None:
        pass
