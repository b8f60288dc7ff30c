"""In which precision a run computes, and in which its frozen weights are held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vltune.engine import processor

if TYPE_CHECKING:
    import torch
    from torch import nn

SMALL = 128 * 128  # pixels of an image, below which products on a CPU are too small for bfloat16 to pay
PRODUCTS = {"bf16-mixed": "bfloat16"}  # what autocast multiplies in


def settle(config: dict) -> dict:
    """The same configuration, with the precision that `engine.precision=auto` means here: it decides the result, so its
    hash holds it.

    bfloat16 where a GPU computes in it, and on a CPU that is faster so for backbones of full size, whose example
    (`backbone.protocol`) has 128 x 128 pixels or more; float32 elsewhere, and where costs are counted, which do not depend
    on it."""
    engine = config["engine"]
    if engine["precision"] != "auto":
        return config
    lower = config["mode"] != "cost" and has_bfloat16(engine["accelerator"], config["backbone"])
    return config | {"engine": engine | {"precision": "bf16-mixed" if lower else "32-true"}}


def has_bfloat16(accelerator: str, backbone: dict) -> bool:
    """Whether it pays on what a run of this backbone runs on."""
    if accelerator in ("auto", "gpu", "cuda"):
        import torch

        if torch.cuda.is_available():
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return accelerator in ("auto", "cpu") and is_large(backbone) and cpu_has_bfloat16()


def is_large(backbone: dict) -> bool:
    height, width = backbone["protocol"]["image"]
    return height * width >= SMALL


def cpu_has_bfloat16() -> bool:
    """Whether it multiplies faster in bfloat16: with AMX, and by AVX-512 BF16 but on Intel's processors, where that alone
    takes twice as long as float32 (on an AMD EPYC half as long; `bench/README.md`)."""
    return processor.has("amx_bf16") or (processor.has("avx512_bf16") and not processor.is_intel())


def hold(model: nn.Module, precision: str) -> None:
    """Puts frozen weights that autocast would cast at each product into its type, once: the same numbers from half the
    memory."""
    for parameter, dtype in multiplied_in(model, precision):
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def multiplied_in(model: nn.Module, precision: str) -> list[tuple[nn.Parameter, torch.dtype]]:
    """Each weight that autocast casts at each product, and into what: those of linear layers and convolutions, but for what
    another kind of module reads as well."""
    import torch

    if (name := PRODUCTS.get(precision)) is None:
        return []
    multiplied, others = [], set()
    for module in model.modules():
        own = module.parameters(recurse=False)
        if isinstance(module, (torch.nn.Linear, torch.nn.modules.conv._ConvNd)):
            multiplied += own
        else:
            others |= {id(parameter) for parameter in own}
    return [(each, getattr(torch, name)) for each in dict.fromkeys(multiplied) if id(each) not in others]
