"""Sweeps on a real SLURM cluster: whatever befalls a job, its run ends with the numbers of an undisturbed one."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

PRETRAINED = "pkg://vltune/weights/vilt_mini.safetensors"
VLTUNE = str(Path(sys.executable).with_name("vltune"))


def same(record, expected):
    parts = ("identity", "metrics", "selected", "history")
    return record["status"] == "finished" and all(record[part] == expected[part] for part in parts)


def test_an_array_of_runs_goes_on_where_one_fails(bench):
    torch.save({"other": torch.zeros(1)}, foreign := bench.folder / "foreign.pt")
    sweep = bench.sweep("engine.max_steps=4", "method.rank=2", f"weights={PRETRAINED},{foreign},null")
    told, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 1, errors
    assert {r["config"]["weights"]: r["status"] for r in bench.records()} == {
        PRETRAINED: "finished",
        None: "finished",
        str(foreign): "failed",
    }
    assert "2 finished, 1 failed" in told
    again = bench.sweep("engine.max_steps=4", "method.rank=2", f"weights={PRETRAINED},null")
    told, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert "2 of 2 runs finished before" in told


def warned(bench, job):
    bench.ask("scancel", "--signal=USR2", job)


def requeued(bench, job):
    bench.ask("scontrol", "requeue", job)


def preempted(bench, job):
    """By a job that wants all nodes."""
    bench.ask("sbatch", "-p", "high", "-N", "3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")


def node_lost(bench, job):
    """Everything on the job's node dies at once, as where the power fails; then the cluster notices."""
    node = bench.ask("squeue", "-h", "-j", job, "-o", "%N").strip()
    (held,) = bench.results.glob("runs/**/running.json")
    bench.kill_node(node, json.loads(held.read_text())["pid"])
    bench.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    bench.ask("slurmd", "-N", node)


@pytest.mark.parametrize("befalls", [warned, requeued, preempted, node_lost])
def test_a_run_goes_on_after(befalls, bench, undisturbed):
    sweep = bench.sweep()
    bench.until(bench.training, "training")
    (job,) = bench.jobs()
    befalls(bench, job)
    _, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, errors
    assert "Restarts=1" in bench.ask("scontrol", "show", "job", job)
    (record,) = bench.records()
    assert same(record, undisturbed)


def test_a_run_that_outlasts_its_job_goes_on_in_the_next(bench, undisturbed):
    """One minute is SLURM's least, and it warns up to half a minute early."""
    sweep = bench.sweep("engine.max_steps=6000", "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=45")
    bench.until(bench.training, "training")
    (job,) = bench.jobs()
    bench.until(lambda: "Restarts=1" in bench.ask("scontrol", "show", "job", job), "a second job")
    assert [record["status"] for record in bench.records()] in (["interrupted"], ["running"])
    bench.ask("scancel", job)
    sweep.communicate(timeout=60)


def test_a_killed_run_is_told_and_retried(bench, undisturbed):
    sweep = bench.sweep("+sweep=mini_vqa", "method=lora", "seed=0")
    bench.until(bench.training, "training")
    (held,) = bench.results.glob("runs/**/running.json")
    os.kill(json.loads(held.read_text())["pid"], signal.SIGKILL)
    _, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 1, errors
    tell = [VLTUNE, "sweep", "status", "mini_vqa"]
    arguments = [*bench.job, *bench.slurm, "seed=0"]
    assert "1 stale" in bench.ask(*tell, *arguments)
    bench.ask(VLTUNE, "sweep", "retry", "mini_vqa", *arguments)
    bench.until(lambda: "1 of 1 finished" in bench.ask(*tell, *arguments), "the end of the run")
    (record,) = bench.records()
    assert same(record, undisturbed)


def test_jobs_outlive_the_terminal_that_submitted_them(bench, undisturbed):
    sweep = bench.sweep(start_new_session=True)
    assert sweep.stdout.readline().startswith("submitted: 1 runs")
    os.killpg(sweep.pid, signal.SIGKILL)
    bench.until(lambda: [record["status"] for record in bench.records()] == ["finished"], "the end of the run")
    assert same(*bench.records(), undisturbed)


@pytest.mark.parametrize(("nodes", "devices"), [(1, 2), (2, 1)])
def test_two_tasks_are_one_run(nodes, devices, bench):
    """The virtual nodes' names lead nowhere, so that the address of the first is given."""
    address = "hydra.launcher.setup=['export MASTER_ADDR=127.0.0.1']"
    asked = [f"engine.nodes={nodes}", f"engine.devices={devices}", "engine.accelerator=cpu", "engine.max_steps=12"]
    sweep = bench.sweep(*asked, address)
    _, errors = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, errors
    (record,) = bench.records()
    assert record["status"] == "finished"
    assert "2 processes" in bench.logs()
