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
    if any(type(method).penalty is not Method.penalty for method, _, _ in model.tuning.parts):
        raise UserError(f"{ASKED}: this method's penalty reads weights outside of their block; set engine.strategy=ddp")
    check_apart(model)
    if trained := [name for name, each in model.named_parameters() if each.requires_grad and each.dim() == 0]:
        raise UserError(f"{ASKED}: {trained[0]} is one number, and trained; set engine.strategy=ddp")
    if hooked := [name for name, each in model.named_parameters() if each._backward_hooks]:
        raise UserError(f"{ASKED}: {hooked[0]} has a hook on its gradient, which a copy loses; set engine.strategy=ddp")
    for module in model.modules():  # a copy of a function is that function, and reads what it read
        if closed := [name for name, each in vars(module).items() if getattr(each, "__closure__", None)]:
            what = f"{type(module).__name__}.{closed[0]} is a function of its own, which may hold weights"
            raise UserError(f"{ASKED}: {what}; set engine.strategy=ddp")
    return deepcopy(model.cpu())


def blocks(model: Model) -> list[nn.Module]:
    """Whose weights are gathered together: the backbone's blocks, inner ones first, and last all that lies in none."""
    in_parts = model.backbone.called_in_parts()
    own = [module for module in model.modules() if module not in in_parts and any(sites_of_block(module))]
    return [*reversed(own), model]


def sites_of_block(module: nn.Module) -> list[BlockSite]:
    return [child for child in module.children() if isinstance(child, BlockSite)]


def check_apart(model: Model) -> None:
    """UserError where two blocks hold one parameter: each would train its own."""
    held = {block: set(block.modules()) for block in blocks(model)}
    owner: dict[nn.Parameter, nn.Module] = {}
    for block, inside in held.items():
        inner = set().union(*(held[other] for other in inside & held.keys() if other is not block))
        own = [module for module in block.modules() if module not in inner]
        for parameter in (each for module in own for each in module.parameters(recurse=False)):
            if owner.setdefault(parameter, block) is not block:
                shape = "x".join(map(str, parameter.shape))
                raise UserError(f"{ASKED}: several blocks share a parameter ({shape}); set engine.strategy=ddp")


def shard(model: Model, mesh: DeviceMesh) -> Model:
    """A block that a method acts on as a whole stays gathered between its two passes: what goes on from it may go past what
    it gives, which is where its backward pass is known by."""
    numbers = {parameter for parameter in model.parameters() if parameter.dim() == 0}  # frozen: nothing to share out
    for number in numbers:
        number.data = number.data.to(mesh.device_type)
    for block in blocks(model):
        whole = any(site.delta is not None for site in sites_of_block(block))
        after = False if whole else None
        fully_shard(block, mesh=mesh["data_parallel"], reshard_after_forward=after, ignored_params=numbers)
    return model


def mixed(error: Exception) -> UserError | None:
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
