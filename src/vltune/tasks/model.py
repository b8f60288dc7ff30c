"""A backbone with a method attached and a task's head on top."""

from __future__ import annotations

from torch import Tensor, nn

from vltune.sites import Method
from vltune.tasks.task import Task


class Model(nn.Module):
    """Attaches `method` and leaves trainable exactly: what the method made, what the task made, and the parts that the
    paper trains with every method.  They are chosen by identity, never by name."""

    def __init__(self, backbone: nn.Module, task: Task, method: Method):
        super().__init__()
        self.backbone, self.task = backbone, task
        made = method.attach(backbone)
        self.head_parameters = list(task.parameters())
        self.shared_parameters = backbone.always_trained()
        shared = {id(parameter) for parameter in self.shared_parameters}
        of_method = backbone.parameters() if method.tunes_backbone else made
        self.method_parameters = [parameter for parameter in of_method if id(parameter) not in shared]
        self.fusion_parameters = backbone.fusion_parameters()
        self.requires_grad_(False)
        for parameter in [*self.head_parameters, *self.shared_parameters, *self.method_parameters]:
            parameter.requires_grad_(True)

    def forward(self, batch: dict) -> Tensor:
        return self.task(self.backbone, batch)

    def tuned_state(self) -> dict[str, Tensor]:
        """The trained tensors by name: what a run saves."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_tuned(self, state: dict[str, Tensor]) -> None:
        """Takes what `tuned_state` gave; raises KeyError on any leftover on either side."""
        own = {name: p for name, p in self.named_parameters() if p.requires_grad}
        if own.keys() != state.keys():
            raise KeyError(", ".join(sorted(own.keys() ^ state.keys())[:3]))
        for name, parameter in own.items():
            parameter.data.copy_(state[name])
