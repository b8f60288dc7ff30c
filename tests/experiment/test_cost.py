"""mode=cost as it is typed, on every kind of backbone."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from vltune import experiment

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize(
    ("backbone", "task", "parts"),
    [
        ("vilt_mini", "vqa", []),
        ("clip_mini", "classification", ["image", "class"]),
        ("sd_mini", "subject", ["call", "prompt"]),
    ],
)
def test_costs_are_printed_and_recorded_part_by_part(backbone, task, parts, tmp_path, capsys):
    overrides = ["mode=cost", f"backbone={backbone}", f"task={task}", "method=apt", f"results_dir={tmp_path}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        experiment.run(compose("run", overrides), overrides)
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    [file] = (tmp_path / "costs").rglob("*.json")
    costs = json.loads(file.read_text())["cost"]
    assert shown["method_params"] == f"{costs['method_params']:,}"
    assert [*(costs.get("parts") or {})] == parts
    for part in parts:
        assert shown[f"parts.{part}.macs"] == f"{costs['parts'][part]['macs']:,}"
    assert costs["macs"] == sum(costs["parts"][part]["macs"] for part in parts) or not parts


@pytest.mark.parametrize(
    ("task", "number"),
    [(["task=vqa", "backbone=vilt_mini"], "answers"), (["task=classification", "backbone=clip_mini"], "classes")],
)
def test_a_head_of_unknown_size_is_refused_not_counted_as_empty(task, number, tmp_path, capsys):
    method = "linear_probe" if number == "classes" else "lora"
    overrides = ["mode=cost", *task, f"method={method}", f"~dataset.{number}", f"results_dir={tmp_path}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        with pytest.raises(SystemExit):
            experiment.run(compose("run", overrides), overrides)
        assert f"error: dataset.{number}: is missing" in capsys.readouterr().err
        experiment.run(compose("run", [*overrides, f"+dataset.{number}=5"]), overrides)
    assert "task_params" in capsys.readouterr().out
