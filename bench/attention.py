"""Milliseconds of attention, fused beside plain matrix products, in training (forward and backward) and inference.

    python bench/attention.py [THREADS]     a minute; what `auto` takes (src/vltune/nn/attend.py) is marked

Sizes, batch x heads x queries x keys: ViLT at 384 pixels, METER's image tower, its cross-attention, the small
backbones, and one whose weights fit no cache."""

import sys
import time

import torch

from vltune.engine import processor
from vltune.nn.attend import attend, choose, kernel

SIZES = {
    "ViLT": (8, 12, 185, 185),
    "METER, image": (2, 12, 577, 577),
    "METER, cross": (2, 12, 50, 577),
    "small": (64, 4, 26, 26),
    "long": (1, 8, 4096, 4096),
}
ROUNDS = 9


def measured(chosen: str, size: tuple[int, int, int, int], dtype: torch.dtype, trains: bool) -> float:
    batch, heads, queries, keys = size
    given = [torch.randn(batch, heads, count, 64, dtype=dtype, requires_grad=trains) for count in (queries, keys, keys)]
    choose(chosen)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with torch.set_grad_enabled(trains):
            y = attend(*given)
            if trains:
                y.sum().backward()
        times.append(time.perf_counter() - began)
    return 1000 * sorted(times)[ROUNDS // 2]


def taken(size: tuple[int, int, int, int], dtype: torch.dtype, trains: bool) -> str:
    choose("auto", processor.has("amx_bf16"))
    return kernel("cpu", dtype == torch.bfloat16, trains, weights=size[2] * size[3])


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if sys.argv[1:] else 1)
    print(f"{'':<42}{'fused':>10}{'plain':>10}{'plain / fused':>15}  auto")
    for dtype in (torch.float32, torch.bfloat16):
        for trains in (True, False):
            for name, size in SIZES.items():
                fused, plain = (measured(chosen, size, dtype, trains) for chosen in ("fused", "plain"))
                what = f"{name}, {str(dtype)[6:]}, {'training' if trains else 'inference'}"
                figures = f"{fused:>10.1f}{plain:>10.1f}{plain / fused:>15.2f}"
                print(f"{what:<42}{figures}  {taken(size, dtype, trains)}", flush=True)


if __name__ == "__main__":
    main()
