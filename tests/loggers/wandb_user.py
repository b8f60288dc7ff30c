"""A user's machine, on which runs are logged in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from fabricated import fabricate
from wandb_server import KEY

from vltune.records import record as records

HISTORY = [{"step": step, "train/loss": 1 / step} for step in (1, 2, 3)]
STEPS = [1, 2, 3, 4]  # of the history, and that of the scores
LOGGED = """
import json, sys
from pathlib import Path
from vltune.loggers.wandb import WandbLogger
options, file, folder, steps, exit_code = json.loads(sys.argv[1])
record, folder = json.loads(Path(file).read_text()), Path(folder)
logger = WandbLogger(**{"mode": "online", **options})
logger.start(record, folder)
for point in record["history"][:steps]:
    logger.log(point, point["step"])
logger.finish(record, Path(file), exit_code)
print(logger.trouble)
"""


class User:
    """A home without W&B's key or settings, and a results folder."""

    def __init__(self, home: Path):
        self.home = home
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "NETRC"))}
        self.environment |= {"HOME": str(home), "WANDB_ERROR_REPORTING": "false", "OMP_NUM_THREADS": "1"}

    def knows(self, server, key=KEY):
        self.environment |= {"WANDB_BASE_URL": server.address} | ({"WANDB_API_KEY": key} if key else {})
        return self

    def record(self, **fields) -> Path:
        return records.write(fabricate(**{"history": HISTORY, "sweep": "mini", **fields}), self.home / "results")

    def logs(self, file, steps=3, exit_code=0, folder=None, **options) -> subprocess.CompletedProcess:
        """A process that logs a run as run.py does; the time limit is one for the test, far above what it takes."""
        options = {"start_timeout": 1, "finish_timeout": 1, **options}
        given = json.dumps([options, str(file), str(folder or self.home / "run"), steps, exit_code])
        return self.run(sys.executable, "-c", LOGGED, given)

    def run(self, *command, cwd=None) -> subprocess.CompletedProcess:
        pipe = subprocess.PIPE
        return subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            timeout=120,
            cwd=cwd,
        )


def patient(**more):
    """Time enough for a server that answers."""
    return {"start_timeout": 60, "finish_timeout": 60, **more}
