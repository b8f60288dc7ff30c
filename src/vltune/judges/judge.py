"""What a judge is: a frozen model that says how alike two pictures are, and, where it reads texts, what a picture shows.

A task's configuration names its judges, `task.judges.NAME`, by the module of this folder that holds each; adding one is
adding a file here with one subclass of `Judge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import Parameter, signature
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.values import instead


class Judge(nn.Module):
    """pictures: what its figure of two pictures, a cosine, is called, such as `dino`.  texts: what that of a picture and
    its prompt is called, None where it reads no texts; texts_unit: of that one.

    Its constructor takes the keys of `task.judges.NAME`; where one of them is null it is not here, and judges later."""

    pictures: ClassVar[str]
    texts: ClassVar[str | None] = None
    texts_unit: ClassVar[str] = "cosine"

    @property
    def identity(self) -> str:
        """Which model it is: the figures of two that differ here cannot be compared."""
        raise TypeError(f"{type(self).__name__} has no identity")

    def embed(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, regions, dim): what each region of a picture holds, of unit length; zero where it holds
        nothing."""
        raise TypeError(f"{type(self).__name__} has no embed")

    def agreement(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, H, W) uint8 and their prompts -> (B,): how well each shows what its prompt says."""
        raise TypeError(f"{type(self).__name__} reads no texts")


def alike(one: Tensor, other: Tensor) -> Tensor:
    """(B, R, D) and (C, R, D) -> (B, C): the cosine of those of their regions that are most alike."""
    return (one[:, None, :, None] * other[None, :, None]).sum(-1).flatten(2).amax(2).clamp(-1, 1)


def together(one: Tensor, other: Tensor) -> Tensor:
    """(B, R, D) twice -> (B,): the cosine of whole pictures, region by region where they lie; of two empty ones 1."""
    one, other = one.flatten(1), other.flatten(1)
    cosine = F.cosine_similarity(one, other, dim=-1).clamp(-1, 1)
    return torch.where(one.any(-1) | other.any(-1), cosine, 1.0)


def opened(kind: type[Judge], **given: object) -> Judge:
    """Ready to judge.  What its layers start as is drawn apart: a run draws the same whether it is judged or not."""
    with torch.random.fork_rng(devices=[]):
        return kind(**given).eval()


def check_settings(name: str, kind: type[Judge], given: Mapping[str, object]) -> None:
    """UserError where what is given for a judge is not what its constructor takes."""
    taken = {
        each.name: each
        for each in signature(kind).parameters.values()
        if each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    }
    for key in given:
        if key not in taken:
            raise UserError(f"task.judges.{name}.{key}: there is no such setting; {instead(key, taken)}")
    for key, each in taken.items():
        if each.default is Parameter.empty and key not in given:
            raise UserError(f"task.judges.{name}.{key}: is missing; give it, or task.judges.{name}=null not to ask it")


def find(name: str) -> type[Judge]:
    """The judge that stands in the module `vltune.judges.NAME`.  UserError where there is none of that name."""
    try:
        module = import_module(f"vltune.judges.{name}")
    except ModuleNotFoundError:
        raise UserError(f"task.judges.{name}: there is no such judge; see src/vltune/judges") from None
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Judge) and each.__module__ == module.__name__
    ]
    if len(found) != 1 or found[0] is Judge:
        raise UserError(f"task.judges.{name}: there is no such judge; see src/vltune/judges")
    return found[0]
