"""No logging service: the record is all that is kept."""

from pathlib import Path


class NoLogger:
    """Accepts everything and keeps nothing."""

    def start(self, identity: dict, config: dict, folder: Path, group: str | None) -> None:
        pass

    def log(self, values: dict[str, float], step: int) -> None:
        pass

    def finish(self, summary: dict, exit_code: int) -> None:
        pass
