"""What the small Stable Diffusion's pictures show, read by the toy world's own judge.

    python bench/painted.py                     the pretrained model, 192 held-out prompts at guidance 1, 2 and 3; 3 minutes
    python bench/painted.py results/subject_mini     of a folder's records of task=subject, whose pictures lie beside them,
                                                each configuration's together: its subjects and seeds

Of the model: how often the shape, colour and size of a prompt are at their place, empty quarters empty, a whole picture
right.  Of each record: how often a picture of the subject shows it (shape, texture and both colours), and how often one of
the class alone has taken a texture (the leak).  In percent, with standard errors over runs where there
are several, else over pictures, or over objects and quarters, as if these were independent."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vltune.assemble.data import tokenizer
from vltune.assemble.factory import build
from vltune.data.shapes import quarters
from vltune.data.shapes.looks import SUBJECTS
from vltune.data.shapes.quarters import PAINTS, TEXTURES, Quarters
from vltune.data.shapes.scenes import SHAPES
from vltune.engine.precision import settle
from vltune.judges.shapes import ShapesJudge
from vltune.judges.wanted import CLASS, SUBJECT
from vltune.pictures import as_bytes, read_pictures
from vltune.sweep.compose import configurations
from vltune.weights.backbones import load_backbone
from vltune.weights.finding import locate

ROOT = Path(__file__).resolve().parents[1]
PROMPTS, AT_A_TIME, STEPS = 192, 32, 25


def main(*folders: str) -> None:
    torch.set_num_threads(1)
    judge = ShapesJudge()
    if folders:
        tuned(judge, [Path(folder) for folder in folders])
    else:
        untuned(judge)


def untuned(judge: ShapesJudge) -> None:
    config = settle(configurations(ROOT, [["mode=pretrain", "backbone=sd_mini"]])[0])
    backbone = build(config["backbone"])
    load_backbone(backbone, locate("pkg://vltune/weights/sd_mini.safetensors"), cls_id=2)
    drawn = quarters.draw(np.random.default_rng(77), PROMPTS, "test")
    prompts = quarters.captions(np.random.default_rng(78), drawn, True)
    print(f"{'':<12}" + "".join(f"{name:>14}" for name in shown(judge, drawn, rendered(drawn))))
    line("drawn", shown(judge, drawn, rendered(drawn)))
    for guidance in (1.0, 2.0, 3.0):
        pictures = painted(backbone.eval(), tokenizer(config["backbone"]), prompts, guidance)
        line(f"guidance {guidance:g}", shown(judge, drawn, pictures))


def rendered(drawn: Quarters) -> torch.Tensor:
    return torch.from_numpy(quarters.render(drawn))


@torch.no_grad()
def painted(backbone, words, prompts: list[str], guidance: float) -> torch.Tensor:
    """(B, 3, 32, 32) uint8"""

    def states(texts: list[str]) -> torch.Tensor:
        return backbone.embed_prompt({"text_ids": torch.tensor([words(text) for text in texts])})

    found = []
    for start in range(0, len(prompts), AT_A_TIME):
        some = prompts[start : start + AT_A_TIME]
        noise = backbone.noise(range(5000 + start, 5000 + start + len(some)))
        found.append(backbone.paint(states(some), states([""]), noise, STEPS, guidance))
    return as_bytes(torch.cat(found))


def shown(judge: ShapesJudge, drawn: Quarters, pictures: torch.Tensor) -> dict[str, np.ndarray]:
    seen = {name: values.numpy() for name, values in judge.read(pictures).items()}
    there = drawn.shape > 0
    right = {name: seen[name] == getattr(drawn, name) for name in ("shape", "colour", "size")}
    both = right["shape"] & right["colour"]
    return {name: values[there] for name, values in right.items()} | {
        "placed": both[there],
        "empty": seen["shape"][~there] == 0,
        "whole": np.where(there, both, seen["shape"] == 0).all(1),
    }


def tuned(judge: ShapesJudge, folders: list[Path]) -> None:
    found: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for file in sorted(file for folder in folders for file in folder.rglob("*-seed*.json")):
        record = json.loads(file.read_text())
        split = "test" if record["metrics"]["test"] else "val"
        if (pictures := file.with_suffix("") / split / "base").is_dir():
            shown, leaked, before = read(judge, record, pictures.parent)
            scores = [np.array([record["metrics"][split][name]]) for name in ("faithful", "drift")]
            found.setdefault(settings(record), []).append((shown, leaked, before, *scores))
    print(
        f"{'':<60}{'runs':>5}{'subject shown':>15}{'class leaked':>15}{'in the base':>15}{'faithful':>10}{'drift':>8}"
    )
    for name, runs in found.items():
        *shares, faithful, drift = zip(*runs, strict=True)
        shown = "".join(f"{over_runs(values) if values[1:] else share(*values):>15}" for values in shares)
        print(f"{name:<60}{len(runs):>5}{shown}{np.mean(faithful):>10.3f}{np.mean(drift):>8.3f}", flush=True)


def over_runs(values: Sequence[np.ndarray]) -> str:
    means = np.array([100 * each.mean() for each in values])
    return f"{means.mean():.1f} ({means.std(ddof=1) / np.sqrt(len(means)):.1f})"


def settings(record: dict) -> str:
    """What tells configurations apart here."""
    task, method = record["config"]["task"], record["config"]["method"]
    captions = len(task.get("class_captions") or [""])
    prior = f"prior {task['prior_weight']:g}, {task['class_pictures']} pictures, {captions} captions"
    return f"{method['name']} {record['config']['engine']['lr']:g}, {prior}"


def read(judge: ShapesJudge, record: dict, folder: Path) -> tuple[np.ndarray, ...]:
    look = SUBJECTS[record["config"]["dataset"]["subject"]]
    subject = {
        "shape": SHAPES.index(look.noun) + 1,
        "texture": TEXTURES.index(look.texture),
        "colour": PAINTS.index(look.colour) + 1,
        "second": PAINTS.index(look.second) + 1,
    }

    def of(pattern: str) -> dict[str, np.ndarray]:
        return {name: seen.numpy() for name, seen in judge.read(read_pictures(sorted(folder.glob(pattern)))).items()}

    by_prompt = of(f"{SUBJECT}-*.png")
    is_subject = np.logical_and.reduce([by_prompt[name] == value for name, value in subject.items()])
    leaked, before = of(f"{CLASS}-*.png")["texture"] > 0, of(f"base/{CLASS}-*.png")["texture"] > 0
    return is_subject.any(1), leaked.any(1), before.any(1)


def line(name: str, found: dict[str, np.ndarray]) -> None:
    print(f"{name:<12}" + "".join(f"{share(values):>14}" for values in found.values()), flush=True)


def share(found: np.ndarray) -> str:
    mean = found.mean()
    return f"{100 * mean:.1f} ({100 * np.sqrt(mean * (1 - mean) / len(found)):.1f})"


if __name__ == "__main__":
    main(*sys.argv[1:])
