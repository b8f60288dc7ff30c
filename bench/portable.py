"""What arithmetic costs that is the same on all Intel processors: a small backbone's training steps with either kernels.

    python bench/portable.py [--backbone vilt_mini] [--steps 300] [--rounds 3] [--method lora]

Both in processes of their own, one after the other; medians of a run's steps, and of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]


def step(backbone: str, method: str, steps: int, portable: bool) -> float:
    """The median of a run's training steps, in ms."""
    with TemporaryDirectory() as results:
        given = [f"backbone={backbone}", f"method={method}", f"engine.max_steps={steps}", f"results_dir={results}"]
        chosen = [f"engine.portable={str(portable).lower()}", "engine.evaluate=[]", "engine.threads=1"]
        subprocess.run([sys.executable, "run.py", *given, *chosen], cwd=ROOT, check=True, capture_output=True)
        (file,) = Path(results).glob("records/*/*/*.json")
        record = json.loads(file.read_text(encoding="utf-8"))
    kernels = record["provenance"]["kernels"]
    if (kernels == "portable") != portable:
        sys.exit(f"engine.portable={portable} was asked for, and {kernels} kernels computed")
    return record["cost"]["train_step_ms"]["median"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=["vilt_mini", "meter_mini"])
    parser.add_argument("--method", default="lora")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(f"{'backbone':<12}{'own, ms':>10}{'portable, ms':>14}{'ratio':>8}")
    for backbone in asked.backbone:
        times = {portable: [] for portable in (False, True)}
        for _ in range(asked.rounds):
            for portable, found in times.items():
                found.append(step(backbone, asked.method, asked.steps, portable))
        own, portable = (statistics.median(found) for found in times.values())
        ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
        print(f"{backbone:<12}{own:>10.1f}{portable:>14.1f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
