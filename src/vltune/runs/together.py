"""What the processes of a run tell each other from host to host, by gloo: no device is read, and none waited for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

if TYPE_CHECKING:
    import numpy as np
    from torch.distributed import ProcessGroup

PATIENCE = timedelta(days=1)  # for who is late; one that ends breaks its connections, which all notice at once


class Processes(Protocol):
    """A launched Fabric, or `Alone`."""

    world_size: int
    global_rank: int


@dataclass(frozen=True)
class Alone:
    """One process of a run that has no part in what the others do."""

    world_size: int = 1
    global_rank: int = 0


ALONE = Alone()


def largest(processes: Processes, *values: float) -> list[float]:
    """Of each value the largest of all processes', which call this together."""
    return _reduced(processes, values, "MAX").tolist()


def mean(processes: Processes, values: Sequence) -> list:
    """Of each number, in lists of whatever depth, the mean over all processes, which call this together."""
    return (_reduced(processes, values, "SUM") / processes.world_size).tolist()


def _reduced(processes: Processes, values: Sequence, how: str) -> np.ndarray:
    import numpy as np

    shared = np.array(values, float)
    if processes.world_size > 1:
        import torch

        torch.distributed.all_reduce(torch.from_numpy(shared), getattr(torch.distributed.ReduceOp, how), group=hosts())
    return shared


def told(processes: Processes, value: Any) -> list:
    """The values of all processes by rank, which call this together; none goes on before the last one came."""
    if processes.world_size == 1:
        return [value]
    import torch

    found: list = [None] * processes.world_size
    torch.distributed.all_gather_object(found, value, group=hosts())
    return found


def is_shared(processes: Processes, folder: Path) -> bool:
    """Whether all processes of the run, which call this together, see one folder of that name, where there are several; it
    is made then.  Not where it cannot be made or written."""
    if processes.world_size == 1:
        return True
    mark = folder / f".{uuid4().hex}.mark"
    if processes.global_rank == 0:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
    seen = (folder / told(processes, mark.name)[0]).exists()
    everywhere = all(told(processes, seen))
    if processes.global_rank == 0:
        with suppress(OSError):
            mark.unlink()
    return everywhere


def hosts() -> ProcessGroup:
    """All processes, by gloo; made at the first call."""
    import torch

    return _hosts_of(torch.distributed.group.WORLD)


@cache
def _hosts_of(world: ProcessGroup) -> ProcessGroup:
    import torch

    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
