"""Time of a training step of METER with stored features beside one that runs the frozen towers.

    python bench/feature_cache.py [--method apt] [--batch 2] [--rounds 5] [--threads 2]

METER with CLIP B/16 at 384 x 384 pixels and RoBERTa-base, random weights, 40 text tokens, dropout as in training; float32
on a CPU, bfloat16 autocast where there is a GPU.  Both steps run in this process on the same examples, in turn: medians of
the rounds, and the median of the ratios round by round.  A step with stored features includes reading them, from the page
cache.  Takes about two minutes on two cores and 4 GB.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric

from vltune.assemble.factory import build, build_method
from vltune.features.store import Store
from vltune.model import Model
from vltune.sweep.compose import configurations
from vltune.tasks.vqa import VQA

ROOT = Path(__file__).parents[1]
ANSWERS, TOKENS = 3129, 40


def make(method: str) -> Model:
    [config] = configurations(ROOT, [["backbone=meter", "task=vqa", f"method={method}"]])
    torch.manual_seed(0)
    backbone = build(config["backbone"])
    task = VQA(backbone.pooled_width, backbone.width, [str(i) for i in range(ANSWERS)])
    return Model(backbone, task, build_method(config["method"]))


def example(size: int) -> dict:
    return {
        "text_ids": torch.randint(1000, 50000, (size, TOKENS)),
        "text_mask": torch.ones(size, TOKENS, dtype=torch.bool),
        "image": torch.randn(size, 3, 384, 384),
        "answer_labels": [[i] for i in range(size)],
        "answer_scores": [[1.0] for _ in range(size)],
    }


@torch.no_grad()
def stored(fabric: Fabric, model: Model, batch: dict, folder: Path) -> Callable[[], dict]:
    """Keeps the features of a batch; returns what reads the same batch with them."""
    model.eval()
    with fabric.autocast():
        features = {
            "text": model.backbone.text_features(batch["text_ids"], batch["text_mask"]),
            "image": model.backbone.image_features(batch["image"]),
        }
    keys = [bytes([i]) * 32 for i in range(len(batch["image"]))]
    stores = {name: Store(folder, {"modality": name}, of_all[:1]) for name, of_all in features.items()}
    for name, store in stores.items():
        store.write(iter([(keys, list(features[name]))]))
        store.load()
    rest = {key: value for key, value in batch.items() if key != "image"}
    return lambda: (
        rest | {f"{name}_features": torch.stack(list(map(store.get, keys))) for name, store in stores.items()}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="apt")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    gpu = torch.cuda.is_available()
    fabric = Fabric(devices=1, precision="bf16-mixed" if gpu else "32-true")
    model = make(chosen.method).to(fabric.device)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    batch = fabric.to_device(example(chosen.batch))

    def step(read: Callable[[], dict]) -> tuple[float, float]:
        """Milliseconds, and the loss."""
        model.train()
        torch.manual_seed(0)
        began = time.perf_counter()
        now = fabric.to_device(read())
        with fabric.autocast():
            loss = model.task.loss(model(now), now)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        value = float(loss.detach())
        if gpu:
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - began), value

    with tempfile.TemporaryDirectory() as folder:
        read = stored(fabric, model, batch, Path(folder))
        times = [(step(read)[0], step(lambda: batch)[0]) for _ in range(chosen.rounds + 1)][1:]
    with_features, without = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    where = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"METER, {chosen.method}, batch {chosen.batch}, {where}: a training step takes")
    print(f"{without:10.1f} ms with the towers\n{with_features:10.1f} ms with stored features\n{ratio:10.2f} of it")


if __name__ == "__main__":
    main()
