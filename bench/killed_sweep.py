"""A sweep that is killed again and again, and whether it ends like an undisturbed one:

    python bench/killed_sweep.py +sweep=mini_vqa --reference results [--kills 10] [--seed 0] [--every 40]
    python bench/killed_sweep.py +sweep=mini_vqa hydra/launcher=slurm --reference results      on a cluster

At random moments a random process gets SIGTERM or SIGKILL: the one that launches, or one that runs; on SLURM a job is
also warned (SIGUSR2) or queued again.  Whatever ended is started again by the same command.  At the end the records are set
beside the reference's: exit status 1 where a score, a loss or a prediction differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from vltune.records import predictions
from vltune.records import record as records
from vltune.sweep import launch as drive
from vltune.sweep import plan

ROOT = Path(__file__).parents[1]


def launch(arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, "run.py", "-m", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def running(results: Path) -> list[int]:
    """Process ids of runs in work."""
    found = []
    for file in results.glob("runs/**/running.json"):
        with suppress(OSError, ValueError):
            found.append(json.loads(file.read_text())["pid"])
    return found


def jobs() -> list[str]:
    done = subprocess.run(["squeue", "-h", "-r", "-t", "R", "-o", "%i"], capture_output=True, text=True)
    return done.stdout.split()


def disturb(rng: random.Random, launcher: subprocess.Popen, results: Path, slurm: bool) -> str:
    """What was done."""
    if slurm and (job := rng.choice([*jobs(), None])) and (how := rng.choice(["warned", "queued again", None])):
        command = ["scancel", "--signal=USR2", job] if how == "warned" else ["scontrol", "requeue", job]
        subprocess.run(command, check=False)
        return f"job {job} {how}"
    signum = rng.choice([signal.SIGTERM, signal.SIGKILL])
    pids = running(results)
    pid = rng.choice([launcher.pid, *pids])
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
    return f"{signum.name} to {'the launcher' if pid == launcher.pid else 'a run'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="+", help="of `python run.py -m`")
    parser.add_argument("--reference", type=Path, required=True, help="results of the same runs, undisturbed")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--every", type=float, default=40, help="seconds between two of them, on the average")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.chdir(ROOT)
    rng = random.Random(options.seed)
    slurm = "hydra/launcher=slurm" in options.arguments
    (ROOT / "outputs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "outputs") as folder:
        results = Path(folder) / "results"
        arguments = [*options.arguments, f"results_dir={results}", "engine.checkpoint_seconds=5"]
        began, left = time.monotonic(), options.kills
        launcher, starts = launch(arguments), 1
        due = time.monotonic() + rng.uniform(0.2, 1.8) * options.every
        while True:
            time.sleep(0.5)
            if left and time.monotonic() > due:
                print(f"{time.monotonic() - began:6.0f} s: {disturb(rng, launcher, results, slurm)}", flush=True)
                left, due = left - 1, time.monotonic() + rng.uniform(0.2, 1.8) * options.every
            if launcher.poll() is not None:
                states = {each.state for each in drive.standings(plan.plan(ROOT, arguments))}
                if states == {"finished"}:
                    break
                launcher, starts = launch(arguments), starts + 1
        seconds = time.monotonic() - began
        print(f"{options.kills - left} kills, {starts} starts of the command, {seconds:.0f} s")
        differing(results, options.reference)


def differing(results: Path, reference: Path) -> None:
    files = sorted(results.glob("records/**/*.json"))
    wrong = []
    for file in files:
        other = reference / file.relative_to(results)
        ours, theirs = records.read(file), records.read(other)
        same = all(ours[key] == theirs[key] for key in ("identity", "metrics", "history", "status"))
        tables = [predictions.read(each.with_suffix(predictions.PREDICTIONS)) for each in (file, other)]
        if not same or not tables[0].equals(tables[1]):
            wrong.append(str(file.relative_to(results)))
    print(f"{len(files)} records, {len(wrong)} of them unlike the reference", *wrong, sep="\n  ")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
