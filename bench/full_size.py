"""The main job at its real size, on generated data in the official layouts:

    python bench/full_size.py [--questions 28000] [--backbone meter] [--method apt] [--steps 6] [--folder DIR]

Everything that a user of the real thing does, with the user's own commands: raw VQAv2 to shards, the check, what the
checkpoint is, training a few steps, a stop by SIGTERM in the middle, the same command again.  Images are noise, weights are
random (in the official key layout, with an untrained tokenizer): nothing here is a result.  Needs 6 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from prepare import WORDS, write_raw
from tokenizers.implementations import BertWordPieceTokenizer, ByteLevelBPETokenizer

from vltune.assemble.factory import build
from vltune.sweep.compose import configurations

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "weights"))
from layouts import written  # noqa: E402

PYTHON, VLTUNE = sys.executable, str(Path(sys.executable).parent / "vltune")


def write_checkpoint(file: Path, backbone: str) -> None:
    from vltune.weights.maps import meter, vilt

    [config] = configurations(ROOT, [[f"backbone={backbone}", "task=vqa"]])
    torch.manual_seed(0)
    layout = {"vilt": vilt.AUTHORS, "meter": meter.AUTHORS}[backbone]
    torch.save({"state_dict": written(build(config["backbone"]), layout)}, file)


def write_tokenizer(folder: Path, backbone: str) -> list[str]:
    """-> the overrides that name its files"""
    text = [" ".join(WORDS)]
    if backbone == "vilt":
        encoder = BertWordPieceTokenizer()
        encoder.train_from_iterator(text, vocab_size=200, show_progress=False)
        encoder.save_model(str(folder))
        return [f"backbone.tokenizer.vocabulary={folder}/vocab.txt"]
    encoder = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    encoder.train_from_iterator(text, vocab_size=400, special_tokens=special, show_progress=False)
    encoder.save_model(str(folder))
    return [f"backbone.tokenizer.vocabulary={folder}/vocab.json", f"backbone.tokenizer.merges={folder}/merges.txt"]


def call(command: list[str], stop_after: Path | None = None) -> None:
    """Runs it, prints its last lines, its time and the peak memory of its main process.

    stop_after: a folder; SIGTERM 45 s after a record is in it."""
    began, peak, signalled_at = time.perf_counter(), 0, math.inf
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, peak_memory(process.pid))
            if stop_after is not None and signalled_at == math.inf and any(stop_after.rglob("*.json")):
                signalled_at = time.perf_counter() + 45
            if time.perf_counter() > signalled_at:
                process.send_signal(signal.SIGTERM)
                stop_after, signalled_at = None, math.inf
            time.sleep(0.2)
        output.seek(0)
        lines = output.read().strip().splitlines()[-12:]
    print(f"$ {Path(command[0]).name} {' '.join(command[1:])}", *(f"    {line}" for line in lines), sep="\n")
    seconds = time.perf_counter() - began
    print(f"    [status {process.returncode}, {seconds:.1f} s, peak {peak / 1e9:.2f} GB]\n", flush=True)


def peak_memory(pid: int) -> int:
    """Bytes that were resident at once so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=28_000, help="with fewer, val has no 1,000 images to hold out")
    parser.add_argument("--backbone", choices=("vilt", "meter"), default="meter")
    parser.add_argument("--method", default="apt")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--folder", type=Path, help="where to make it all, in a folder that is deleted afterwards")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        raw, data, weights = Path(folder, "raw"), Path(folder, "data"), Path(folder, f"{options.backbone}.ckpt")
        results = Path(folder, "results")
        raw.mkdir()
        write_raw(raw, options.questions)
        write_checkpoint(weights, options.backbone)
        call([VLTUNE, "prepare", "vqav2", "--raw", str(raw), "--out", str(data)])
        call([VLTUNE, "check", str(data)])
        call([VLTUNE, "weights", str(weights)])
        run = [
            *(PYTHON, "run.py", f"method={options.method}", f"backbone={options.backbone}", "task=vqa"),
            *(f"weights={weights}", f"dataset.data_dir={data}", f"results_dir={results}"),
            *write_tokenizer(Path(folder), options.backbone),
            *(
                "engine.batch_size=8",
                "engine.micro_batch_size=2",
                "engine.eval_batch_size=4",
                "engine.cache_features=false",
            ),
            *(f"engine.max_steps={options.steps}", "engine.eval_examples=16"),
        ]
        call(run, stop_after=results)
        call(run)
        for file in results.glob("records/**/*.json"):
            record = json.loads(file.read_text())
            shown = {key: record[key] for key in ("id", "status", "metrics", "history", "out_of_memory", "cost")}
            print(json.dumps(shown | {"phases": record["provenance"]["phases"]}, indent=1))


if __name__ == "__main__":
    main()
