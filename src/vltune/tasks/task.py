"""What the engine asks of a task."""

from __future__ import annotations

from torch import Tensor, nn


class Task(nn.Module):
    """A head on a backbone's features, its loss and its metric.

    metric: the name of the figure that checkpoints are selected by and tables show; larger is better.
    images: the batch's keys of an example's images.
    evaluator: how predictions are made: a module of vltune.evaluators, such as `per_example`, or `all_pairs`, which scores
    every image with every text of a split.
    """

    metric: str
    images: tuple[str, ...] = ("image",)
    evaluator = "per_example"

    def forward(self, backbone: nn.Module, batch: dict) -> Tensor:
        """The head's output for a batch, (B, ...)."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def loss(self, output: Tensor, batch: dict) -> Tensor:
        """The mean loss of a batch, a scalar."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def predictions(self, output: Tensor, batch: dict) -> list[dict]:
        """One row an example: `id`, `prediction`, `score` (0 to 1, null where the truth is unknown)."""
        raise TypeError(f"{type(self).__name__} has no predictions")

    def metrics(self, predictions: list[dict]) -> dict[str, float]:
        """Figures in percent over all predictions of a split; empty where the truth is unknown."""
        raise TypeError(f"{type(self).__name__} has no metrics")
