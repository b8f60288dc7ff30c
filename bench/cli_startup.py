"""How long the commands that compute nothing take, as whole processes: `python bench/cli_startup.py`.  About 10 s."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent  # not resolved: a virtual environment's own folder
REPEATS = 5
COMMANDS = {
    "python run.py --cfg job": [sys.executable, "run.py", "--cfg", "job"],
    "python run.py --help": [sys.executable, "run.py", "--help"],
    "vltune --help": [str(BIN / "vltune"), "--help"],
}


def measure(command: list[str]) -> tuple[float, int]:
    """Wall time in seconds, and the exit status."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began, done.returncode


def main() -> None:
    print(f"{'command':<26}{'median':>9}{'min .. max':>20}")
    for name, command in COMMANDS.items():
        measure(command)  # the first one compiles to bytecode and fills the file cache
        seconds, statuses = zip(*(measure(command) for _ in range(REPEATS)), strict=True)
        failed = "  failed: exit status {}".format(*filter(None, statuses)) if any(statuses) else ""
        print(f"{name:<26}{median(seconds):>7.2f} s{min(seconds):>9.2f} .. {max(seconds):.2f} s{failed}")


if __name__ == "__main__":
    main()
