"""Scoring every image with every caption: our scoring beside one forward pass a pair, of the same model.

    python bench/retrieval.py [--images 3] [--captions 12] [backbone=meter method=classifier_only ...]

Random weights and pixels at the real sizes, METER at 384 x 384 unless told otherwise; captions of 9 to 15 tokens.  MACs
are measured by fvcore, towers shared out over as many pairs as Flickr30K's test has; time is measured on the few images
and captions of this run and includes the towers that it needs.  Where others use the machine too, the CPU's time says
more than the clock.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vltune.assemble.model import build_model
from vltune.backbones.backbone import Encoded
from vltune.costs import macs
from vltune.engine.precision import settle
from vltune.engine.session import Session
from vltune.engine.source import BadExamples, Data
from vltune.evaluators.all_pairs import AllPairs
from vltune.model import Model
from vltune.runs.signals import StopRequest
from vltune.settings.engine import Settings
from vltune.sweep.compose import configurations

IMAGES, CAPTIONS, LENGTH = 1000, 5000, 12  # of Flickr30K's test; tokens a caption whose MACs are counted
LENGTHS = (9, 12, 15)


class Part(nn.Module):
    """A step of the computation as a function of a batch's tensors, to be counted."""

    def __init__(self, model: Model, step: Callable[[dict], Tensor | list[Tensor]], batch: dict[str, Tensor]):
        super().__init__()
        self.model, self.step, self.keys = model, step, [*batch]  # a trace needs the parameters to be a module's own

    def forward(self, *given: Tensor) -> Tensor | list[Tensor]:
        return self.step(dict(zip(self.keys, given, strict=True)))


def traced(part: Part, batch: dict[str, Tensor]) -> int:
    return macs.traced(part, tuple(batch.values()))


def tensors(encoded: Encoded) -> list[Tensor]:
    return [part for part in (encoded.tokens, encoded.attended) if part is not None]


@torch.no_grad()
def count(model: Model, batch: dict[str, Tensor]) -> dict[str, int]:
    """MACs of a caption's and an image's own part, of what a pair adds, and of a whole forward pass."""
    backbone = model.backbone
    encode = {"caption": backbone.encode_text, "image": backbone.encode_image}
    own = {
        "caption": {key: value for key, value in batch.items() if key.startswith("text")},
        "image": {key: value for key, value in batch.items() if key.startswith("image")},
    }
    encoded = {f"{of}.{i}": part for of in own for i, part in enumerate(tensors(encode[of](own[of])))}

    def pair(parts: dict[str, Tensor]) -> Tensor:
        made = (Encoded(parts[f"{of}.0"], None, parts.get(f"{of}.1")) for of in own)
        return model.task.score(backbone.fuse(*made))

    return {
        **{of: traced(Part(model, lambda given, of=of: tensors(encode[of](given)), own[of]), own[of]) for of in own},
        "pair": traced(Part(model, pair, encoded), encoded),
        "whole": sum(macs.count(model, batch).values()),
    }


def report_macs(model: Model, config: dict) -> None:
    spec = config["backbone"]

    def example(length: int) -> dict[str, Tensor]:
        return macs.example(length, spec["protocol"]["image"], spec["vocabulary_size"])

    with model.tuning.folded():
        parts = count(model, example(LENGTH))
        with macs.every_token(model.backbone):
            released = sum(macs.count(model, example(spec["protocol"]["text_len"])).values())
    ours = parts["pair"] + parts["image"] / CAPTIONS + parts["caption"] / IMAGES
    print(
        f"MACs, G: image {parts['image'] / 1e9:.4g}, caption {parts['caption'] / 1e9:.4g}, pair {parts['pair'] / 1e9:.4g}"
    )
    print(f"MACs a pair, G: ours {ours / 1e9:.4g}")
    for label, whole in (
        (f"pair by pair, {LENGTH} tokens", parts["whole"]),
        (f"as released: padded to {spec['protocol']['text_len']} tokens, every token in the last layer", released),
    ):
        print(f"    {label}: {whole / 1e9:.4g}, ratio {ours / whole:.3f}")


class Split:
    """Random images and captions; `collate` makes batches of one caption length, as `AllPairs` asks for them."""

    def __init__(self, images: int, captions: int, size: tuple[int, int], vocabulary: int):
        generator = torch.Generator().manual_seed(0)
        self.images = [{"id": i, "image": torch.randn(3, *size, generator=generator)} for i in range(images)]
        self.captions = [
            {
                "id": i,
                "text_ids": torch.randint(4, vocabulary, (LENGTHS[i % len(LENGTHS)],), generator=generator).tolist(),
            }
            for i in range(captions)
        ]

    def token_ids(self, caption: int) -> list[int]:
        return self.captions[caption]["text_ids"]

    @staticmethod
    def collate(examples: list[dict]) -> dict:
        batch = {"ids": [example["id"] for example in examples]}
        if "image" in examples[0]:
            batch["image"] = torch.stack([example["image"] for example in examples])
            batch["image_size"] = torch.tensor([image.shape[1:] for image in batch["image"]])
        else:
            batch["text_ids"] = torch.tensor([example["text_ids"] for example in examples])
            batch["text_mask"] = torch.ones_like(batch["text_ids"], dtype=torch.bool)
        return batch


@torch.no_grad()
def pair_by_pair(fabric: Fabric, model: Model, split: Split) -> Tensor:
    with model.tuning.folded(), fabric.autocast():
        scores = [
            model(fabric.to_device(split.collate([image]) | split.collate([caption])))
            for image in split.images
            for caption in split.captions
        ]
    return torch.cat(scores).float().cpu().view(len(split.images), -1)


@torch.no_grad()
def all_pairs(fabric: Fabric, model: Model, split: Split, batch: int) -> Tensor:
    data = Data(lambda: None, lambda name: split, split.collate, {}, "bench", eval_batch_size=batch)
    settings = Settings(lr=0.0, workers=0)
    with tempfile.TemporaryDirectory() as own, StopRequest() as stop:
        folder = Path(own)
        session = Session(fabric, model, data, settings, folder / "record.json", folder, stop, BadExamples(0), "bench")
        return AllPairs(session).matrix("test", split)


def report_time(model: Model, config: dict, options: argparse.Namespace) -> None:
    fabric = Fabric(accelerator="auto", devices=1, precision=config["engine"]["precision"])
    model.to(fabric.device)
    spec = config["backbone"]
    sizes = spec["protocol"]["image"], spec["vocabulary_size"]
    warm_up, split = Split(1, 1, *sizes), Split(options.images, options.captions, *sizes)
    ms, scores = {}, {}
    for name, run in (("ours", partial(all_pairs, batch=options.batch)), ("theirs", pair_by_pair)):
        run(fabric, model, warm_up)
        wall, cpu = time.perf_counter(), time.process_time()
        scores[name] = run(fabric, model, split)
        passed = {"wall": time.perf_counter() - wall, "CPU": time.process_time() - cpu}
        ms[name] = {clock: 1000 * seconds / scores[name].numel() for clock, seconds in passed.items()}
    print(f"{fabric.device}, {torch.get_num_threads()} threads, {options.images} images x {options.captions} captions")
    for clock, ours in ms["ours"].items():
        theirs = ms["theirs"][clock]
        print(f"{clock} ms a pair: ours {ours:.1f}, pair by pair {theirs:.1f}, ratio {ours / theirs:.3f}")
    print(f"largest difference of a score: {(scores['ours'] - scores['theirs']).abs().max():.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--captions", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16, help="pairs a batch")
    parser.add_argument("overrides", nargs="*", help="of conf/run.yaml")
    options = parser.parse_args()
    chosen = ["backbone=meter", "task=retrieval", "method=classifier_only", *options.overrides]
    config = settle(configurations(Path(__file__).parents[1], [chosen])[0])
    torch.manual_seed(0)
    model = build_model(config["backbone"], config["task"], config["method"], {}).eval()
    report_macs(model, config)
    report_time(model, config, options)


if __name__ == "__main__":
    main()
