"""`engine.strategy=fsdp`: weights, gradients and AdamW's two means shared out among devices, each parameter along its first
axis (torch's FSDP2).

What is trained then is a copy.  The session's own model stays whole on the host, and takes what was tuned before it is
scored and at the end; so checkpoints, records and what is exported are those of `ddp`, and either goes on from the other's.
Price: a copy in the memory of each process's host, and the whole model on each device while it is scored.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from vltune.errors import UserError
from vltune.settings.engine import Settings
from vltune.sites import BlockSite
from vltune.tuning import Method

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch.distributed.device_mesh import DeviceMesh
    from torch.optim import Optimizer

    from vltune.model import Model

ASKED = "engine.strategy=fsdp"


def strategy(devices: int) -> ModelParallelStrategy:
    """devices: of all nodes together."""
    return ModelParallelStrategy(shard, data_parallel_size=devices, tensor_parallel_size=1)


def is_sharded(fabric: Fabric) -> bool:
    return isinstance(fabric.strategy, ModelParallelStrategy)


def copy_of(model: Model, settings: Settings) -> Model:
    """What is trained in the place of a model, which goes to the host.  UserError where that cannot be shared out."""
    if settings.compile:
        raise UserError(f"{ASKED}: shards are not compiled; set engine.compile=false, or engine.strategy=ddp")
    if model.task.looks_at_data or model.tuning.looks_at_data:
        raise UserError(f"{ASKED}: this method or task looks at data before the first step; set engine.strategy=ddp")
    if any(type(method).penalty is not Method.penalty for method, _, _ in model.tuning.parts):
        raise UserError(f"{ASKED}: this method's penalty reads weights outside of their block; set engine.strategy=ddp")
    copy = deepcopy(model.cpu())
    check_apart(copy)
    return copy


def blocks(model: nn.Module) -> list[nn.Module]:
    """Whose weights are gathered together: the backbone's blocks, inner ones first, and last all that lies in none."""
    own = [module for module in model.modules() if any(isinstance(child, BlockSite) for child in module.children())]
    return [*reversed(own), model]


def check_apart(model: nn.Module) -> None:
    """UserError where two blocks hold one parameter: each would train its own."""
    seen: set[nn.Module] = set()
    owner: dict[nn.Parameter, nn.Module] = {}
    for block in blocks(model):
        inside = [module for module in block.modules() if module not in seen]
        seen.update(inside)
        for parameter in (each for module in inside for each in module.parameters(recurse=False)):
            if owner.setdefault(parameter, block) is not block:
                shape = "x".join(map(str, parameter.shape))
                raise UserError(f"{ASKED}: several blocks share a parameter ({shape}); set engine.strategy=ddp")


def shard(model: Model, mesh: DeviceMesh) -> Model:
    for block in blocks(model):
        fully_shard(block, mesh=mesh["data_parallel"])
    return model


def mixed(error: RuntimeError) -> UserError | None:
    """What a person is told where weights are read while they are not gathered; None of another error."""
    if "mixed torch.Tensor and DTensor" not in str(error):
        return None
    return UserError(f"{ASKED}: this method or backbone reads weights outside of their block; set engine.strategy=ddp")


def whole(state: Any) -> Any:
    """The same dicts and lists with whole tensors in the place of shards; all processes call this together."""
    return tree_map(lambda each: each.full_tensor() if isinstance(each, DTensor) else each, state)


def like(own: Tensor, tensor: Tensor) -> Tensor:
    """A whole tensor, the same in all processes, shared out as `own` is."""
    if not isinstance(own, DTensor) or own.shape != tensor.shape:
        return tensor
    return distribute_tensor(tensor.to(own.device, own.dtype), own.device_mesh, own.placements)


def load_tuned(model: Model, state: dict[str, Tensor]) -> None:
    """`model.load_tuned` of whole tensors.  Errors: its."""
    own = model.tuned_state()
    model.load_tuned({name: like(own.get(name), tensor) for name, tensor in state.items()})


def load_optimiser(optimiser: Optimizer, state: dict) -> None:
    """`optimiser.load_state_dict` of whole tensors.  Errors: its."""
    optimiser.load_state_dict(state)
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            of = optimiser.state.get(parameter, {})
            of |= {name: like(parameter, each) if torch.is_tensor(each) else each for name, each in of.items()}
