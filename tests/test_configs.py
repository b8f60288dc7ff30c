"""Every configuration composes, and builds."""

import dataclasses
import inspect
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vltune import assemble
from vltune.engine.identity import SINCE, identity
from vltune.engine.precision import settle
from vltune.engine.settings import Settings

CONF = Path(__file__).parents[1] / "conf"
FACTS = {"answers": ["yes", "no"]}


def choices(group):
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def composed(*overrides, conf=CONF):
    with initialize_config_dir(str(conf), version_base="1.3"):
        return settle(OmegaConf.to_container(compose("run", list(overrides)), resolve=True))


TASKS = [name for name in choices("task") if name != "pretraining"]


@pytest.mark.parametrize("method", choices("method"))
@pytest.mark.parametrize("backbone", choices("backbone"))
@pytest.mark.parametrize("task", TASKS)
def test_every_method_on_every_backbone_and_task(method, backbone, task):
    config = composed(f"method={method}", f"backbone={backbone}", f"task={task}")
    assert [config[group]["name"] for group in ("method", "backbone", "task")] == [method, backbone, task]
    assert isinstance(assemble.settings(config).lr, float)
    assert assemble.build_method(config["method"])
    if backbone.endswith("_mini"):
        assert assemble.build_model(config, FACTS, pretrained=False).method_parameters or method == "classifier_only"


@pytest.mark.parametrize("group", ["task", "dataset", "engine", "logger", "mode"])
def test_every_other_choice(group):
    for choice in choices(group):
        assert composed(f"{group}={choice}")


@pytest.mark.parametrize("name", choices("sweep"))
def test_every_sweep(name):
    assert composed(f"+sweep={name}")["sweep"] == name


def test_the_data_set_follows_from_backbone_and_task():
    assert composed()["dataset"]["name"] == "shapes"
    assert composed("backbone=vilt", "task=vqa")["dataset"]["name"] == "vqav2"
    assert composed("backbone=meter", "task=retrieval")["dataset"]["name"] == "f30k"
    assert composed("backbone=meter", "task=retrieval", "dataset=coco")["dataset"]["name"] == "coco"
    assert composed("backbone=vilt", "dataset=shapes")["dataset"]["name"] == "shapes"
    assert composed("mode=pretrain")["task"]["name"] == "pretraining"


def of(*overrides, weights="w", data="d"):
    return identity(composed(*overrides), weights, data)["hash"]


@pytest.mark.parametrize(
    "same",
    [
        "results_dir=elsewhere",
        "dataset.data_dir=elsewhere",
        "engine.micro_batch_size=8",
        "engine.workers=3",
        "engine.threads=2",
        *("engine.devices=2", "engine.nodes=2", "engine.accelerator=cpu", "engine.precision=32-true"),
        *("engine.eval_batch_size=3", "engine.cache_features=false", "engine.features_dir=elsewhere"),
        *("engine.checkpoint_seconds=1", "dataset.max_bad_examples=9", "busy=leave"),
        "logger=wandb",
        "seed=3",
        "force=true",
        "weights=elsewhere",
        "engine.lr=${rates.apt}",
    ],
)
def test_what_does_not_decide_the_result_is_not_in_the_hash(same):
    assert of(same) == of()


@pytest.mark.parametrize(
    "other",
    [
        *("method.rank=3", "engine.lr=0.1", "engine.max_steps=5", "backbone.layers=2", "dataset.images=shuffled"),
        *("engine.precision=bf16-mixed", "engine.eval_examples=10"),
        *("dataset.decode=fast", "engine.group_by_length=true"),
    ],
)
def test_what_decides_the_result_is_in_the_hash(other):
    assert of(other) != of()


@pytest.mark.parametrize(
    ("file", "default", "other"),
    [
        ("engine/default", "weight_decay: 0.01", "weight_decay: 0.02"),
        ("method/apt", "prompt_std: 0.02", "prompt_std: 0.03"),
        ("backbone/vilt_mini", "layers: 4", "layers: 3"),
        ("recipe/mini", "max_steps: 1000", "max_steps: 999"),
        ("recipe/vilt_mini-vqa", "start_bias: -3.0", "start_bias: -2.0"),
    ],
)
def test_a_changed_default_changes_the_hash(tmp_path, file, default, other):
    shutil.copytree(CONF, tmp_path / "conf")
    changed = tmp_path / "conf" / f"{file}.yaml"
    text = changed.read_text()
    assert text.count(default) == 1
    changed.write_text(text.replace(default, other))
    assert identity(composed(conf=tmp_path / "conf"), "w", "d")["hash"] != of()


def defaults_in_code(spec):
    """{parameter: default} of what a configuration builds and does not spell out."""
    if not isinstance(spec, dict):
        return {}
    takes = inspect.signature(assemble.find(spec["_target_"])).parameters if "_target_" in spec else {}
    found = {name: parameter.default for name, parameter in takes.items() if name not in spec}
    found = {name: default for name, default in found.items() if default is not inspect.Parameter.empty}
    for value in spec.values():
        found |= defaults_in_code(value)
    return found


def test_no_default_that_decides_a_result_stands_in_the_code_alone():
    """It could change, and the hash would not.  `crop` may never: records hold no word of it."""
    found = {}
    for backbone in choices("backbone"):
        for task in TASKS:
            found |= defaults_in_code(composed(f"backbone={backbone}", f"task={task}"))
    for method in choices("method"):
        found |= defaults_in_code(composed(f"method={method}")["method"])
    assert found == {"crop": True, "randaugment": None, "decode": "exact"}  # the last two come from the data set
    assert {field.name for field in dataclasses.fields(Settings)} <= composed()["engine"].keys()


@pytest.mark.parametrize("group", SINCE)
def test_a_setting_that_came_later_leaves_the_hash_of_earlier_records(group):
    config = composed()
    earlier = config | {group: {key: value for key, value in config[group].items() if key not in SINCE[group]}}
    assert identity(earlier, "w", "d")["hash"] == of()


def test_the_precision_is_settled_before_the_hash():
    assert composed("engine.accelerator=cpu")["engine"]["precision"] == "32-true"
    assert composed("mode=cost")["engine"]["precision"] == "32-true"
    assert composed("engine.precision=bf16-mixed")["engine"]["precision"] == "bf16-mixed"


def test_weights_and_data_are_in_the_hash():
    assert len({of(), of(weights="v"), of(data="e")}) == 3


def test_a_configuration_names_only_what_is_in_vltune():
    with pytest.raises(assemble.UserError, match=r"os\.system: a configuration may only name what is in vltune"):
        assemble.build({"_target_": "os.system", "command": "true"})


def test_a_misspelt_setting_of_a_method_is_told():
    with pytest.raises(
        assemble.UserError, match=r"method\.rnak: lora has no such setting; it has rank, dropout, init_std, roles"
    ):
        assemble.build_method(composed("method=lora", "+method.rnak=3")["method"])
