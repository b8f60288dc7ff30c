"""A backbone with a method attached and a task's head on top."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from vltune.backbones.backbone import Backbone
from vltune.batch import Batch
from vltune.errors import UserError
from vltune.nn.dropout import quicken
from vltune.tasks.task import Task
from vltune.tuning import ALWAYS_TRAINED, Method


class Model(nn.Module):
    """Attaches `method` and leaves trainable exactly: what the method trains, what the task made, and the parts that the
    paper trains with every method, unless the method leaves those out.  They are chosen by identity, never by name."""

    def __init__(self, backbone: Backbone, task: Task, method: Method):
        super().__init__()
        task.check_backbone(type(backbone))
        self.backbone, self.task = backbone, task
        self.tuning = method.attach(backbone)
        self.head_parameters = list(task.parameters())
        if method.always_trained not in ALWAYS_TRAINED:
            raise UserError(
                f"method.always_trained={method.always_trained}: must be one of {', '.join(ALWAYS_TRAINED)}"
            )
        shared = backbone.shared_parameters() if method.always_trained == "paper" else []
        self.shared_parameters = [*shared, *task.also_trains(backbone)]
        unread = {id(parameter) for parameter in task.unread(backbone)}
        if places := self.tuning.places_of(unread):
            raise UserError(
                f"{type(method).__name__} would train the {' and the '.join(places)} part of {type(backbone).__name__}, "
                f"which {type(task).__name__} as it is set (task.*) does not read: choose another method.sites_in"
            )
        apart = unread | {id(parameter) for parameter in self.shared_parameters}
        of_method = backbone.own_parameters() if method.tunes_backbone else self.tuning.trained
        self.method_parameters = [parameter for parameter in of_method if id(parameter) not in apart]
        task.check_trained(backbone, self.method_parameters)
        self.fusion_parameters = backbone.fusion_parameters()
        self.requires_grad_(False)
        for parameter in [*self.head_parameters, *self.shared_parameters, *self.method_parameters]:
            parameter.requires_grad_(True)
        quicken(self)
        task.meet(backbone.text_is_fixed(self.trains))

    def forward(self, batch: Batch) -> Tensor:
        return self.task(self.backbone, batch)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Inference with everything computed once that is the same for all examples."""
        with self.tuning.folded(), self.task.settled():
            yield

    def trains(self, part: nn.Module) -> bool:
        """Whether what a part of the backbone computes changes in training."""
        return self.tuning.acts_in(part) or any(parameter.requires_grad for parameter in part.parameters())

    def tuned_state(self) -> dict[str, Tensor]:
        """By name what was trained, and what the method holds beside that: what a run saves."""
        return {name: tensor.detach() for name, tensor in self._tuned().items()}

    def load_tuned(self, state: dict[str, Tensor]) -> None:
        """Takes what `tuned_state` gave; raises KeyError on any leftover on either side, ValueError on another shape."""
        own = self._tuned()
        if own.keys() != state.keys():
            raise KeyError(", ".join(sorted(own.keys() ^ state.keys())[:3]))
        if other := [name for name, tensor in own.items() if tensor.shape != state[name].shape]:
            raise ValueError(f"{other[0]} is {tuple(state[other[0]].shape)}, not {tuple(own[other[0]].shape)}")
        for name, tensor in own.items():
            tensor.data.copy_(state[name])

    def _tuned(self) -> dict[str, Tensor]:
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        decided = {f"backbone.{name}": tensor for name, tensor in self.tuning.decided().items()}
        return trained | decided | {f"task.{name}": tensor for name, tensor in self.task.decided().items()}
