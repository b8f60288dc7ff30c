"""The sweeps of `sweeps/wandb`: what their agents run, and what becomes of it."""

import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb.wandb_agent
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from presented import METHODS
from wandb_server import serving
from wandb_user import User

from vltune.assemble.factory import build_method
from vltune.catalogue import families
from vltune.engine.precision import settle
from vltune.loggers.summary import figures
from vltune.records import record as records
from vltune.settings.engine import Settings

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


@pytest.fixture
def agent(monkeypatch, tmp_path):
    """W&B's own agent, which starts nothing: -> the command and the environment of a process, from values of parameters."""
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        wandb.wandb_agent, "AgentProcess", lambda **process: started.append(process) or SimpleNamespace()
    )
    monkeypatch.setattr(wandb.wandb_agent.os, "environ", {"WANDB_SWEEP_ID": "abcd1234", "WANDB_DIR": str(tmp_path)})

    def command(sweep: dict, values: dict, run_id: str = "r") -> tuple[list[str], dict]:
        working = wandb.wandb_agent.Agent(api=None, queue=None)
        working._sweep_command = list(sweep["command"])
        given = {name: {"value": value} for name, value in values.items()}
        working._command_run({"run_id": run_id, "program": sweep["program"], "args": given})
        return started[-1]["command"], started[-1]["env"]

    return command


@pytest.mark.parametrize("file", SWEEPS, ids=NAMES)
def test_every_command_of_an_agent_composes(file, agent):
    sweep = loaded(file)
    combinations = product(*map(tried, sweep["parameters"].values()))
    made = [agent(sweep, dict(zip(sweep["parameters"], values, strict=True)))[0] for values in combinations]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for program, script, *overrides in made:
            assert (program, script) == ("python", "run.py")
            config = settle(OmegaConf.to_container(compose("run", overrides), resolve=True))
            assert config["logger"]["mode"] == "online"
            assert isinstance(Settings.of(config["engine"]).lr, float)
            assert build_method(config["method"])
    assert len({tuple(command) for command in made}) == len(made)


def test_the_grid_is_that_of_the_sweep_of_the_same_name():
    ours = yaml.safe_load((ROOT / "sweeps" / "mini_vqa.yaml").read_text())["hydra"]["sweeper"]["params"]
    theirs = loaded(ROOT / "sweeps" / "wandb" / "mini_vqa.yaml")["parameters"]
    sets = families(METHODS)
    assert {name: about["values"] for name, about in theirs.items()} == {
        name: [yaml.safe_load(each) for value in values.split(",") for each in sets.get(value, (value,))]
        for name, values in ours.items()
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


def test_the_run_ids_of_agents_hold_for_runs_and_for_records_that_are_there(agent, tmp_path):
    """Two commands with the same combination: the second finds the record of the first."""
    quick = ["engine.max_steps=4", "engine.batch_size=8", f"dataset.data_dir={tmp_path / 'world'}"]
    quick += ["dataset.generate.images={train: 20, val: 8, test: 8}", f"results_dir={tmp_path / 'results'}"]
    sweep = loaded(ROOT / "sweeps" / "wandb" / "mini_vqa.yaml")
    user, done = User(tmp_path), []
    with serving() as server:
        user.knows(server)
        for run_id in ("first", "second"):
            (_, script, *overrides), environment = agent(sweep, {"method": "lora", "seed": 7}, run_id)
            user.environment |= environment
            done.append(user.run(sys.executable, script, *quick, *overrides, cwd=ROOT))
            assert done[-1].returncode == 0, done[-1].stderr
    assert "finished before" in done[1].stdout
    assert server.runs.keys() == {"first", "second"}
    [file] = tmp_path.glob("results/records/**/*.json")
    record = records.read(file)
    for run in server.runs.values():
        assert (run.exit_code, run.last("sweep"), run.last("groupName")) == (0, "abcd1234", "abcd1234")
        assert [row["_step"] for row in run.history] == [1, 2, 3, 4, 5, 6]
        assert run.summary["val/vqa_score"] == pytest.approx(record["metrics"]["val"]["vqa_score"])
        assert run.config["identity"] == record["identity"]
        assert run.config["method"] == "lora"
        assert run.config["settings"]["method"] == record["config"]["method"]
    assert not server.unanswered
