"""The sweeps of `sweeps/wandb`: what their agents run, and what becomes of it."""

import json
import sys
from itertools import product
from pathlib import Path

import pytest
import wandb.wandb_agent
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from wandb_server import serving
from wandb_user import User

from vltune import assemble
from vltune.loggers.figures import figures
from vltune.results import record as records

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps" / "wandb").glob("*.yaml"))
NAMES = [file.stem for file in SWEEPS]


def loaded(file: Path) -> dict:
    return yaml.safe_load(file.read_text())


def tried(about: dict) -> list:
    """What a sweep gives a parameter: all values, or the ends of the range."""
    return (
        about["values"] if "values" in about else [about["value"]] if "value" in about else [about["min"], about["max"]]
    )


def commands(sweep: dict, monkeypatch, tmp_path):
    """The commands that W&B's own agent makes of every combination of what the sweep tries."""
    made = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", lambda command, env, **_: made.append(command) or Started())
    monkeypatch.setattr(wandb.wandb_agent.os, "environ", {"WANDB_SWEEP_ID": "abcd1234", "WANDB_DIR": str(tmp_path)})
    agent = wandb.wandb_agent.Agent(api=None, queue=None)
    agent._sweep_command = sweep["command"]
    names, values = zip(*((name, tried(about)) for name, about in sweep["parameters"].items()), strict=True)
    for combination in product(*values):
        given = {name: {"value": value} for name, value in zip(names, combination, strict=True)}
        agent._command_run({"run_id": "r", "program": sweep["program"], "args": given})
    return made


class Started:
    """Stands for a process."""


@pytest.mark.parametrize("file", SWEEPS, ids=NAMES)
def test_every_command_of_an_agent_composes(file, monkeypatch, tmp_path):
    made = commands(loaded(file), monkeypatch, tmp_path)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for program, script, *overrides in made:
            assert (program, script) == ("python", "run.py")
            config = OmegaConf.to_container(compose("run", overrides), resolve=True)
            assert config["logger"]["mode"] == "online"
            assert isinstance(assemble.settings(config).lr, float)
            assert assemble.build_method(config["method"])
    assert len({tuple(command) for command in made}) == len(made)


def test_the_grid_is_that_of_the_sweep_of_the_same_name():
    ours = yaml.safe_load((ROOT / "sweeps" / "mini_vqa.yaml").read_text())["hydra"]["sweeper"]["params"]
    theirs = loaded(ROOT / "sweeps" / "wandb" / "mini_vqa.yaml")["parameters"]
    assert {name: about["values"] for name, about in theirs.items()} == {
        name: [yaml.safe_load(value) for value in values.split(",")] for name, values in ours.items()
    }


@pytest.mark.parametrize("file", SWEEPS, ids=NAMES)
def test_the_metric_is_one_that_runs_log(file):
    sweep = loaded(file)
    record = records.read(next((ROOT / "results" / "records" / "vilt_mini" / "vqa-shapes").glob("*.json")))
    assert sweep["metric"]["name"] in figures(record)
    assert sweep["metric"]["name"].startswith("val/")
    assert sweep["method"] == "grid" or "engine.evaluate=[val]" in sweep["command"]


@pytest.mark.parametrize("file", SWEEPS, ids=NAMES)
def test_the_keys_are_those_of_wandbs_schema(file):
    """W&B's schema lies in its package `sweeps`, which is none of ours; these files passed it (0.3.0)."""
    sweep = loaded(file)
    keys = {"name", "program", "method", "run_cap", "metric", "parameters", "command"}
    assert sweep.keys() <= keys
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"].keys() == {"name", "goal"}
    assert sweep["metric"]["goal"] == "maximize"
    for about in sweep["parameters"].values():
        assert about.keys() in ({"value"}, {"values"}, {"distribution", "min", "max"})
    if sweep["method"] == "grid":
        assert all("distribution" not in about for about in sweep["parameters"].values())
    else:
        assert sweep["run_cap"] > 0, "random and Bayesian searches go on for ever"


def test_an_agent_calls_run_py_and_its_run_ids_hold(tmp_path):
    """W&B's own command line, two commands with the same combination: the second finds the record of the first."""
    quick = ["engine.max_steps=4", "engine.batch_size=8", f"dataset.data_dir={tmp_path / 'world'}"]
    quick += ["dataset.generate.images={train: 20, val: 8, test: 8}", f"results_dir={tmp_path / 'results'}"]
    sweep = loaded(ROOT / "sweeps" / "wandb" / "mini_vqa.yaml")
    sweep["command"] = [sys.executable, str(ROOT / "run.py"), *quick, *sweep["command"][2:]]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    given = {"method": {"value": "lora"}, "seed": {"value": 7}}
    run = {"type": "run", "program": "run.py", "args": given}
    user, program = User(tmp_path), str(Path(sys.executable).with_name("wandb"))
    with serving(commands=[run | {"run_id": "first"}, run | {"run_id": "second"}]) as server:
        created = user.knows(server).run(program, "sweep", "--project", "vltune", "sweep.yaml", cwd=tmp_path)
        assert "wandb agent someone/vltune/abcd1234" in created.stderr
        agent = user.run(program, "agent", "someone/vltune/abcd1234", cwd=tmp_path)
        assert agent.returncode == 0, agent.stderr
    assert not server.commands
    assert server.runs.keys() == {"first", "second"}
    [file] = tmp_path.glob("results/records/**/*.json")
    record = records.read(file)
    for logged in server.runs.values():
        assert logged.exit_code == 0
        assert logged.last("sweep") == "abcd1234"
        assert logged.last("groupName") == "abcd1234"
        assert [row["_step"] for row in logged.history] == [1, 2, 3, 4, 5, 6]
        assert logged.summary["val/vqa_score"] == pytest.approx(record["metrics"]["val"]["vqa_score"])
        assert logged.config["identity"] == record["identity"]
        assert logged.config["settings"]["method"] == record["config"]["method"]
    assert "finished before" in agent.stdout
    assert json.loads(server.runs["first"].last("config"))["method"]["value"] == "lora"
    assert not server.unanswered
