"""What Ctrl-C and SIGTERM do to a command."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the command with one line and the status that a shell expects."""

    def stop(signum: int, frame: object) -> None:
        nonlocal status
        status = 128 + signum
        raise KeyboardInterrupt

    status = 128 + signal.SIGINT
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo(str(error) or "stopped", err=True)
        raise typer.Exit(status) from None
    finally:
        signal.signal(signal.SIGTERM, before)
