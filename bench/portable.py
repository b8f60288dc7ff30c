"""What arithmetic costs that is the same on several processors: a small backbone's training steps with either kernels.

    python bench/portable.py [--backbone vilt_mini] [--steps 300] [--rounds 3] [--method lora]

Processor's own, `portable` (Intel's alone) and `compatible`, in processes of their own, one after the other; medians of a
run's steps, and of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from vltune.engine.kernels import obstacle

ROOT = Path(__file__).parents[1]


KERNELS = {"portable": "true", "compatible": "compatible"}  # as a record calls them, and what asks for them


def step(backbone: str, method: str, steps: int, name: str) -> float:
    """The median of a run's training steps, in ms."""
    with TemporaryDirectory() as results:
        given = [f"backbone={backbone}", f"method={method}", f"engine.max_steps={steps}", f"results_dir={results}"]
        chosen = [f"engine.portable={KERNELS.get(name, 'false')}", "engine.evaluate=[]", "engine.threads=1"]
        subprocess.run([sys.executable, "run.py", *given, *chosen], cwd=ROOT, check=True, capture_output=True)
        (file,) = Path(results).glob("records/*/*/*.json")
        record = json.loads(file.read_text(encoding="utf-8"))
    kernels = record["provenance"]["kernels"]
    if (kernels if kernels in KERNELS else "own") != name:
        sys.exit(f"{name} kernels were asked for, and {kernels} kernels computed")
    return record["cost"]["train_step_ms"]["median"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=["vilt_mini", "meter_mini"])
    parser.add_argument("--method", default="lora")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    obstacles = {name: obstacle("cpu", 1, name == "compatible") for name in KERNELS}
    for name, reason in obstacles.items():
        if reason:
            print(f"{name}: {reason}")
    names = ["own", *(name for name, reason in obstacles.items() if not reason)]
    print(f"{'backbone':<12}{'kernels':<12}{'step, ms':>10}{'ratio':>8}")
    for backbone in asked.backbone:
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(asked.rounds):
            for name, found in times.items():
                found.append(step(backbone, asked.method, asked.steps, name))
        for name, found in times.items():
            ratio = statistics.median(b / a for a, b in zip(times["own"], found, strict=True))
            print(f"{backbone:<12}{name:<12}{statistics.median(found):>10.1f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
