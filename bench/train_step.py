"""Time and memory of a training step, and time of inference, at real size.

    python bench/train_step.py [--backbone vilt] [--rounds 7] [--batch 8] [--methods lora apt ...] [--compile]

ViLT-B/32, 384 x 384 images and 40 text tokens, and CLIP-B/16 (`--backbone clip`), 224 x 224 and the prompts of 32
classes, beside transformers' under PEFT's LoRA, in both towers of CLIP; full tuning beside theirs fully tuned.  METER
(`--backbone meter --batch 2`) beside one of transformers' parts (`meter_peer.py`), which computes the last layer for
every token.  No padding, no dropout but LoRA's; random weights; float32, and bfloat16 autocast where the device computes
in it, ours with frozen weights held so, as a run holds them.  Both sides run in this process on the same inputs, in turn;
medians of the rounds, and the median of the ratios round by round.  `--compile`: beside these our own training step
compiled, as by `engine.compile=true`.  `of ceiling` is our share of what matrix products of 4096 x 768 x 3072 alone reach
in the same rounds: MACs of the model x passes / time / that, passes being 1 in inference, 3 in full tuning (forward, and
backward to inputs and to weights), else 2 (the class token is trained always).  `GFLOP/s`: of the products while training.

`--memory` tells instead, each method in a process of its own, what the first step takes on top of the model: activations,
gradients and the optimiser's state.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import meter_peer
import torch
from torch import nn

from vltune.assemble.factory import build, build_method
from vltune.costs import macs, usage
from vltune.engine import processor
from vltune.engine.precision import cpu_has_bfloat16, hold
from vltune.model import Model
from vltune.nn import attend
from vltune.sweep.compose import configurations
from vltune.tasks.image_classification import ImageClassification
from vltune.tasks.vqa import VQA

METHODS = ("lora", "apt", "adapter", "scaled_pa", "deep_prompt", "shallow_prompt", "classifier_only", "full")
ANSWERS, CLASSES = 3129, 32


def inputs(size: int, device: str, backbone: str = "vilt") -> dict:
    generator = torch.Generator().manual_seed(0)
    side = 224 if backbone == "clip" else 384
    return {
        "text_ids": torch.randint(1000, 30522, (size, 40), generator=generator).to(device),
        "text_mask": torch.ones(size, 40, dtype=torch.bool, device=device),
        "image": torch.randn(size, 3, side, side, generator=generator).to(device),
        "image_size": torch.full((size, 2), side),
        "label": torch.arange(size, device=device),
        "answer_labels": [[i] for i in range(size)],
        "answer_scores": [[1.0] for _ in range(size)],
    }


def make(backbone: str, method: str) -> Model:
    """Our model with random weights and no dropout in the backbone."""
    chosen = ["task=classification"] if backbone == "clip" else ["task=vqa", "backbone.dropout=0"]
    [config] = configurations(Path(__file__).parents[1], [[f"backbone={backbone}", f"method={method}", *chosen]])
    torch.manual_seed(0)
    built, made = build(config["backbone"]), build_method(config["method"])
    if backbone == "clip":
        return Model(built, ImageClassification(512, [str(i) for i in range(CLASSES)], ["{}"], Prompts()), made)
    return Model(built, VQA(built.pooled_width, built.width, [str(i) for i in range(ANSWERS)]), made)


class Prompts:
    """Every text is of 12 tokens."""

    max_length = 77

    def __call__(self, text: str) -> list[int]:
        return [49406, *[1000 + int(text)] * 10, 49407]


def peer_model(backbone: str, method: str, device: str) -> nn.Module:
    """transformers', fully tuned or under PEFT's LoRA."""
    from peft import LoraConfig, get_peft_model
    from transformers import CLIPConfig, CLIPModel, ViltConfig, ViltForQuestionAnswering

    if backbone == "meter":
        peer = meter_peer.MeterPeer(ANSWERS)
        return (peer if method == "full" else meter_peer.lora(peer)).to(device)
    if backbone == "clip":
        model = CLIPModel(CLIPConfig(vision_config={"patch_size": 16}))
        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
    else:
        model = ViltForQuestionAnswering(
            ViltConfig(num_labels=ANSWERS, max_position_embeddings=40, max_image_length=-1)
        )
        lora = LoraConfig(r=4, target_modules=["query", "value"], lora_dropout=0.1, modules_to_save=["classifier"])
    return (model if method == "full" else get_peft_model(model, lora)).to(device)


def peer_forward(backbone: str, model: nn.Module, batch: dict) -> torch.Tensor:
    if backbone == "clip":
        ids = torch.tensor([Prompts()(str(i)) for i in range(CLASSES)], device=batch["image"].device)
        return model(input_ids=ids, pixel_values=batch["image"]).logits_per_image
    if backbone == "meter":
        return model(text_ids=batch["text_ids"], image=batch["image"])
    return model(
        input_ids=batch["text_ids"],
        attention_mask=batch["text_mask"].long(),
        pixel_values=batch["image"],
        pixel_mask=torch.ones_like(batch["image"][:, 0], dtype=torch.long),
    ).logits


def precisions(device: str) -> dict[str, torch.dtype]:
    """float32, and bfloat16 where it is no emulation."""
    fast = device == "cuda" or cpu_has_bfloat16()
    return {"float32": torch.float32} | ({"bfloat16": torch.bfloat16} if fast else {})


@torch.no_grad()
def ceiling(dtype: torch.dtype, device: str) -> float:
    """Multiply-accumulates a millisecond of matrix products, now."""
    left, right = (torch.randn(shape, dtype=dtype, device=device) for shape in ((4096, 768), (768, 3072)))
    return 4096 * 768 * 3072 / min(timed(lambda: left @ right, device) for _ in range(5))


def work(model: Model, backbone: str, name: str, size: int) -> tuple[int, int]:
    """Multiply-accumulates of a training step and of inference, of CLIP's texts too."""
    one = {key: value for key, value in inputs(1, "cpu", backbone).items() if isinstance(value, torch.Tensor)}
    of_each = macs.count(model, one | ({"text_ids": one["text_ids"][:, :12]} if backbone == "clip" else {}))
    total = sum(each * (CLASSES if part == "class" else size) for part, each in of_each.items())
    return total * (3 if name == "full" else 2), total


def trainer(model: nn.Module, forward: Callable, task: VQA, batch: dict, autocast: Callable) -> Callable[[], None]:
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step() -> None:
        model.train()
        with autocast():
            loss = task.loss(forward(batch), batch)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def infer(model: nn.Module, forward: Callable, batch: dict, autocast: Callable) -> Callable[[], None]:
    @torch.no_grad()
    def step() -> None:
        model.eval()
        with autocast():
            forward(batch)

    return step


def timed(step: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)


def in_turn(ours: Callable, peer: Callable, rounds: int, device: str, dtype: torch.dtype) -> list[float]:
    """Medians: milliseconds of both and their ratio, ours times the ceiling, and the ceiling.  A round is warm-up."""
    taken = [(timed(ours, device), timed(peer, device), ceiling(dtype, device)) for _ in range(rounds + 1)][1:]
    figures = [(mine, theirs, mine / theirs, mine * most, most) for mine, theirs, most in taken]
    return [statistics.median(each) for each in zip(*figures, strict=True)]


def first_step_mb(backbone: str, method: str, size: int) -> float:
    """Peak memory of a step above what there was before it, in MB; for a fresh process, which has nothing to reuse."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, batch = make(backbone, method).to(device), inputs(size, device)
    step = trainer(model, model, model.task, batch, nullcontext)
    gc.collect()
    measured = torch.device(device)
    usage.reset_peak_memory(measured)
    before = torch.cuda.memory_allocated() if device == "cuda" else usage.peak_memory_bytes(measured)
    step()
    return (usage.peak_memory_bytes(measured) - before) / 1e6


def memory(backbone: str, methods: list[str], size: int) -> None:
    print(f"{'method':17}{'step MB':>10}{'of full':>10}")
    alone = partial(ProcessPoolExecutor, 1, get_context("spawn"))
    of_full = None
    for method in methods:
        with alone() as process:
            taken = process.submit(first_step_mb, backbone, method, size).result()
        of_full = of_full or taken
        print(f"{method:17}{taken:10.0f}{taken / of_full:10.2f}", flush=True)


def make_peer(backbone: str, method: str, device: str) -> tuple[nn.Module, Callable, Callable]:
    """The peer, and what folds its method into its weights and back."""
    peer = peer_model(backbone, method, device)
    return peer, getattr(peer, "merge_adapter", bool), getattr(peer, "unmerge_adapter", bool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=("vilt", "meter", "clip"), default="vilt")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="of conf/method, in the sizes of a run")
    parser.add_argument("--compile", action="store_true", help="the training step compiled, beside it as it is")
    parser.add_argument("--memory", action="store_true", help="peak memory of a training step, beside full tuning's")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    attend.choose("auto", processor.has("amx_bf16"))
    batch = inputs(options.batch, device, options.backbone)
    print(
        f"{options.backbone}, {device}, {torch.get_num_threads()} threads, batch {options.batch}, torch {torch.__version__}"
    )
    if options.memory:
        memory(options.backbone, ["full", *(name for name in options.methods if name != "full")], options.batch)
        return
    if options.backbone == "meter":
        one = {key: value for key, value in inputs(1, "cpu", "meter").items() if isinstance(value, torch.Tensor)}
        print(meter_peer.likeness(make("meter", "lora"), one))
    columns = ("train ms", "peer", "ratio", "of ceiling", "infer ms", "peer", "ratio", "of ceiling", "GFLOP/s")
    print(f"{'precision':10}{'method':17}" + "".join(f"{column:>11}" for column in columns))
    for precision, dtype in precisions(device).items():

        def autocast(dtype: torch.dtype = dtype) -> torch.autocast:
            return torch.autocast(device, dtype, enabled=dtype != torch.float32)

        for name in options.methods:
            model = make(options.backbone, name)
            if not any(parameter.requires_grad for parameter in model.parameters()):
                print(f"{precision:10}{name:17}  trains nothing here: CLIP's classes are texts", flush=True)
                continue
            macs_of = work(model, options.backbone, name, options.batch)
            model = model.to(device)
            hold(model, "32-true" if dtype == torch.float32 else "bf16-mixed")
            ready = model.backbone.arrange(batch)
            train = trainer(model, model, model.task, ready, autocast)
            peer, merge, unmerge = make_peer(options.backbone, name, device)
            forward = partial(peer_forward, options.backbone, peer)
            theirs = trainer(peer, forward, model.task, batch, autocast)
            trained = in_turn(train, theirs, options.rounds, device, dtype)
            merge()
            with model.tuning.folded():
                ours, theirs = (infer(*each, autocast) for each in ((model, model, ready), (peer, forward, batch)))
                inferred = in_turn(ours, theirs, options.rounds, device, dtype)
            unmerge()
            figures = "".join(
                f"{a:11.0f}{b:11.0f}{ratio:11.2f}{of / possible:11.0%}"
                for (a, b, ratio, possible, _), of in zip((trained, inferred), macs_of, strict=True)
            )
            print(f"{precision:10}{name:17}{figures}{2 * trained[-1] / 1e6:11.0f}", flush=True)
            if options.compile:
                fast = trainer(model, torch.compile(model, fullgraph=True), model.task, ready, autocast)
                first = timed(fast, device)
                a, b, ratio, *_ = in_turn(fast, train, options.rounds, device, dtype)
                print(
                    f"{precision:10}{'  compiled':17}{a:11.0f}{b:11.0f}{ratio:11.2f}   first {first / 1000:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
