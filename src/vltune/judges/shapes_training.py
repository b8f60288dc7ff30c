"""Trains the embedded world's judge and writes its committed weights anew: `python -m vltune.judges.shapes_training`.

Three minutes of a CPU.  Pictures have noise or are blurred now and then, so that painted ones are read like drawn ones.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vltune.data.shapes import quarters
from vltune.data.shapes.quarters import PAINTS, Quarters
from vltune.judges.shapes import READ, WEIGHTS, QuarterReader

SEED, STEPS, BATCH, RATE = 1, 1200, 64, 3e-3
TEXTURED, BLURRED, NOISE = 0.4, 0.3, 0.08  # shares of objects and pictures; of noise, the scale of its deviation


def train(steps: int = STEPS, batch: int = BATCH) -> QuarterReader:
    """The rate falls in a line."""
    torch.manual_seed(SEED)
    reader = QuarterReader()
    optimiser = torch.optim.AdamW(reader.parameters(), RATE)
    for step in range(steps):
        drawn = shown(SEED, step, batch, TEXTURED)
        outputs = reader.read(reader(disturbed(scaled(quarters.render(drawn)))))
        losses = [F.cross_entropy(outputs[name].flatten(0, 1), labels(drawn, name).flatten()) for name in READ]
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / steps)
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()
    return reader.eval()


def shown(seed: int, step: int, count: int, textured: float) -> Quarters:
    """Objects of all colours, or, without textures, of those in captions."""
    more = {"paints": len(PAINTS)} if textured else {}
    return quarters.draw(np.random.default_rng((seed, step)), count, None, textured, **more)


def scaled(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).float() / 127.5 - 1


def labels(drawn: Quarters, name: str) -> Tensor:
    return torch.from_numpy(getattr(drawn, name))


def disturbed(pictures: Tensor) -> Tensor:
    size = (len(pictures), 1, 1, 1)
    noisy = pictures + torch.randn(size).abs() * NOISE * torch.randn_like(pictures)
    blurred = F.avg_pool2d(F.pad(noisy, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return torch.where(torch.rand(size) < BLURRED, blurred, noisy)


@torch.no_grad()
def accuracy(reader: QuarterReader, textured: float, count: int = 2000, seed: int = 9) -> dict[str, float]:
    """The share of objects of which each attribute is read right, and of empty quarters that are read as `empty`."""
    drawn = shown(seed, 0, count, textured)
    outputs = reader.read(reader(scaled(quarters.render(drawn))))
    right = {name: logits.argmax(-1) == labels(drawn, name) for name, logits in outputs.items()}
    there = labels(drawn, "shape") > 0
    found = {name: float(hits[there].float().mean()) for name, hits in right.items()}
    return found | {"empty": float(right["shape"][~there].float().mean())}


def write(reader: QuarterReader) -> None:
    """In half precision."""
    from safetensors.torch import save_file

    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in reader.state_dict().items()
    }
    save_file(state, str(WEIGHTS))


if __name__ == "__main__":
    trained = train()
    write(trained)
    for name, textured in (("plain", 0.0), ("textured", TEXTURED)):
        print(name, {attribute: round(share, 4) for attribute, share in accuracy(trained, textured).items()})
