"""A real SLURM cluster on this machine: three virtual nodes, accounting, preemption by partition."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from vltune.records import record as records

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("cluster.sh")
WORLD = "{layout: '${task.layout}', seed: 0, images: {train: 60, val: 20, test: 30}}"
NEEDED = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch")


@pytest.fixture(scope="session")
def cluster():
    """-> the environment of a user of it.  Skips, and says why, where SLURM is not installed or does not start."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if absent := [name for name in NEEDED if not shutil.which(name, path=path)]:
        pytest.skip(f"SLURM is not installed here: no {', '.join(absent)} (tests/slurm/cluster.sh install, as root)")
    folder = Path(tempfile.mkdtemp(prefix="vltune-slurm-"))
    folder.chmod(0o755)  # munged wants its socket's folder open, which pytest's are not
    gpus = "2" if os.geteuid() == 0 else "0"
    environment = os.environ | {"PATH": path, "SLURM_SANDBOX": str(folder), "GPUS": gpus}
    started = subprocess.run(
        ["bash", str(SCRIPT), "start"], env=environment, capture_output=True, text=True, timeout=120
    )
    try:
        if started.returncode:
            pytest.skip(f"SLURM does not start here: {started.stderr[-300:]}")
        yield environment | {"SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        subprocess.run(["bash", str(SCRIPT), "stop"], env=environment, capture_output=True, timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


class Bench:
    """A results folder, commands that use it, and what is found there."""

    def __init__(self, environment, world, folder):
        self.environment, self.folder = environment, folder
        self.results = folder / "results"
        self.job = [
            "method=lora",
            "engine.max_steps=400",
            "engine.batch_size=8",
            "engine.eval_batch_size=32",
            "engine.checkpoint_seconds=0.2",
            "engine.threads=1",
            f"dataset.data_dir={world}",
            f"dataset.generate={WORLD}",
            f"results_dir={self.results}",
        ]
        self.slurm = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.partition=low"]

    def start(self, *arguments, **more):
        return subprocess.Popen(
            [sys.executable, "run.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def sweep(self, *arguments, **more):
        """`python run.py -m` on the cluster; -> the process, to be waited for"""
        return self.start("-m", *self.job, *self.slurm, *arguments, **more)

    def ask(self, *command, check=True):
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def kill_node(self, node, run):
        """All of its processes at once: its daemon, the job on it, and process `run` of that job."""
        sandbox = Path(self.environment["SLURM_SANDBOX"])
        (script,) = map(int, self.ask("pgrep", "-f", f"{sandbox}/spool/{node}/").split())
        os.kill(int((sandbox / f"run/slurmd-{node}.pid").read_text()), signal.SIGKILL)
        self.ask("pkill", "-KILL", "-s", f"{os.getsid(run)},{os.getsid(script)}")

    def records(self):
        return [records.read(file) for file in sorted(self.results.glob("records/**/*.json"))]

    def until(self, true, what, seconds=120):
        """Waits until `true()`, and returns what it gave."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := true():
                return found
            time.sleep(0.1)
        logs = "\n".join(f"== {log}\n{log.read_text()[-2000:]}" for log in self.folder.rglob("*_log.out"))
        pytest.fail(f"{what}: not in {seconds} s\n{self.ask('squeue', '-a', check=False)}\n{logs}")

    def training(self):
        """Whether a run has saved a checkpoint and goes on."""
        return list(self.results.glob("runs/**/last.pt"))

    def jobs(self):
        """Numbers of the array elements that are not at their end."""
        return self.ask("squeue", "-h", "-r", "-o", "%i").split()

    def logs(self):
        return "\n".join(log.read_text() for log in self.results.rglob("*_log.out"))


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return tmp_path_factory.mktemp("world") / "shapes"


@pytest.fixture
def bench(cluster, world, tmp_path):
    found = Bench(cluster, world, tmp_path)
    yield found
    found.ask("scancel", "-u", str(os.geteuid()), check=False)


@pytest.fixture(scope="session")
def undisturbed(cluster, world, tmp_path_factory):
    """The record of the same run, in one go on this machine; -> {seed: record}"""
    found = Bench(cluster, world, tmp_path_factory.mktemp("undisturbed"))
    process = found.start(*found.job)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    (record,) = found.records()
    return record
