"""Every configuration composes, and builds."""

import dataclasses
import importlib
import inspect
import itertools
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from composed import each_settled, settled
from round_trip import check_round_trip

from vltune.assemble.data import tokenizer_choices
from vltune.assemble.factory import build, build_method, check_values
from vltune.assemble.model import build_model
from vltune.configuration import check_constructors, find
from vltune.errors import UserError
from vltune.methods.classifier_only import ClassifierOnly
from vltune.runs.identity import GROUPS, identity, of_cost
from vltune.settings.check import marks
from vltune.settings.engine import Settings
from vltune.settings.groups import declarations
from vltune.settings.kinds import Before

CONF = Path(__file__).parents[1] / "conf"
FACTS = {"answers": ["yes", "no"], "classes": ["dog", "cat", "bus"], "templates": ["a {}"], "tokenizer": None}
FACTS |= {"noun": "dog", "prompts": []}
FINGERPRINTS = {"weights": {"backbone": "w"}, "tokenizer": {"vocabulary": "v"}, "data": "d"}


def choices(group):
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


TASKS = [name for name in choices("task") if name != "pretraining"]
BACKBONES = choices("backbone")
OF_TOWERS = {"clip", "clip_mini", "classification", "matching"}  # two towers, and tasks that need such
OF_PAINTING = {"stable_diffusion", "sd_mini", "subject"}  # likewise what paints
NAMES = {
    "classification": "few_shot_16",
    "clip": "clip_b16",
    "stable_diffusion": "sd15",
}  # where it is not the choice's


def kind(choice):
    """Which a backbone is of, or a task needs."""
    return "towers" if choice in OF_TOWERS else "painting" if choice in OF_PAINTING else "joint"


def named(choice):
    return NAMES.get(choice, choice)


def built(config):
    """As a run is, after the checks that it begins with; shapes alone."""
    check_values(config)
    check_constructors(config)
    with torch.device("meta"):
        return build_model(config["backbone"], config["task"], config["method"], FACTS)


def refused(config, message):
    with pytest.raises(UserError, match=message) as error:
        built(config)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_on_every_backbone(backbone, task):
    """One of two towers alone, or one that paints, lacks what most tasks need, and has what some need."""
    config = settled(f"backbone={backbone}", f"task={task}")
    assert [config[group]["name"] for group in ("method", "backbone", "task")] == ["apt", named(backbone), named(task)]
    assert isinstance(Settings.of(config["engine"]).lr, float)
    check_round_trip(config)
    if kind(backbone) != kind(task):
        refused(config, r"^\w+ has no \w+, which \w+ needs; choose another backbone or task$")
    else:
        assert built(config).method_parameters


# What of some methods other backbones and tasks than theirs lack, and of others those that paint.
OF_CLASSIFICATION = dict.fromkeys(("clip_adapter", "cocoop", "coop", "maple"), "roles")
OF_CLASSIFICATION |= dict.fromkeys(("zero_shot", "linear_probe", "tip_adapter", "tip_adapter_f"), "classifier")
OF_SUBJECTS = dict.fromkeys(("textual_inversion", "custom_diffusion"), "roles")
OF_SUBJECTS |= {"frozen": "prior_weight", "real": "(shown|prior_weight)", "copied": "(shown|prior_weight)"}
NOT_ON_UNETS = dict.fromkeys(("bitfit", "das", "fact"), "roles")
LACKS = {"towers": OF_SUBJECTS, "joint": OF_CLASSIFICATION | OF_SUBJECTS, "painting": OF_CLASSIFICATION | NOT_ON_UNETS}
USUAL = {"towers": "classification", "joint": "vqa", "painting": "subject"}


@pytest.mark.parametrize("method", choices("method"))
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_method_on_every_backbone(method, backbone):
    task, lacks = USUAL[kind(backbone)], LACKS[kind(backbone)]
    config = settled(f"method={method}", f"backbone={backbone}", f"task={task}")
    assert [config[group]["name"] for group in ("method", "backbone", "task")] == [method, named(backbone), named(task)]
    assert build_method(config["method"])
    check_round_trip(config)
    if method in lacks and (method, backbone) != (
        "fact",
        "sd_mini",
    ):  # whose layers are of one width, as FacT needs them
        refused(config, rf"^(method|task)\.{lacks[method]}\b.*: ")
    else:
        made = find(config["method"]["_target_"])
        assert bool(built(config).method_parameters) == (made is not ClassifierOnly)


@pytest.mark.parametrize("group", ["task", "dataset", "engine", "logger", "mode"])
def test_every_other_choice(group):
    for choice in choices(group):
        assert settled(f"{group}={choice}")


@pytest.mark.parametrize("name", choices("sweep"))
def test_every_sweep(name):
    assert settled(f"+sweep={name}")["sweep"] == name


def test_the_data_set_follows_from_backbone_and_task():
    assert settled()["dataset"]["name"] == "shapes"
    assert settled("backbone=vilt", "task=vqa")["dataset"]["name"] == "vqav2"
    assert settled("backbone=meter", "task=retrieval")["dataset"]["name"] == "f30k"
    assert settled("backbone=meter", "task=retrieval", "dataset=coco")["dataset"]["name"] == "coco"
    assert settled("backbone=vilt", "dataset=shapes")["dataset"]["name"] == "shapes"
    assert settled("mode=pretrain")["task"]["name"] == "pretraining"
    assert settled("mode=pretrain", "backbone=clip_mini")["task"]["name"] == "contrastive"


def of(*overrides, **files):
    return identity(settled(*overrides), FINGERPRINTS | files)["hash"]


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
        "backbone.tokenizer.vocabulary=elsewhere",
        "task.layout=f30k",
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
        # What costs are counted on: the record holds them.
        *("backbone.protocol.text_len=15", "backbone.protocol.image=[32,64]", "dataset.answers=31"),
        "backbone.transform._target_=vltune.data.transforms.SquareResize",
    ],
)
def test_what_decides_the_result_is_in_the_hash(other):
    assert of(other) != of()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("engine.clip=1", "engine.clip=1.0"),
        ("engine.lr=1e-3", "engine.lr=0.001"),
        ("engine.weight_decay=0", "engine.weight_decay=-0.0"),
        ("engine.betas=[0,0.98]", "engine.betas=[0.0,9.8e-1]"),
        ("engine.evaluate=[val,test]", "engine.evaluate=[test,val,val]"),
        ("method.map_std=1", "method.map_std=1.0"),
        ("method.dropout=0", "method.dropout=0e0"),
        ("method.roles=[query,attention_output]", "method.roles=[attention_output,query,query]"),
        ("backbone.dropout=0", "backbone.dropout=0.0"),
        ("task.start_bias=-3", "task.start_bias=-3.00"),
        ("dataset.train_fraction=1", "dataset.train_fraction=1.0"),
        ("+dataset.more={a: [1, 2]}", "+dataset.more={a: [1.0, 2.0]}"),
    ],
)
def test_the_same_value_written_otherwise_has_the_same_hash(one, other):
    assert of(one) == of(other)


def test_what_differs_is_told_apart_however_near():
    values = ("0.1", "0.10000001", "1", "2", "null")
    assert len({of(f"engine.clip={value}") for value in values}) == len(values)
    assert of("+dataset.more=1") != of("+dataset.more='1'")
    assert of("+dataset.more=1") != of("+dataset.more=true")


def test_of_several_towers_the_chosen_one_alone_is_in_the_hash():
    meter = ("backbone=meter", "dataset=shapes")
    assert of(*meter, "backbone.image_towers.clip_b32.width=9") == of(*meter)
    assert of(*meter, "backbone.image_towers.clip_b16.width=9") != of(*meter)
    assert of(*meter, "backbone.image_tower=clip_b32") != of(*meter)


@pytest.mark.parametrize(
    ("backbone", "several", "other"), [("clip", "models", "l14"), ("stable_diffusion", "pipelines", "sd21")]
)
def test_of_several_models_the_chosen_one_alone_is_in_the_hash(backbone, several, other):
    chosen = (f"backbone={backbone}", "task=classification" if backbone == "clip" else "task=subject", "dataset=shapes")
    assert of(*chosen, f"+backbone.{several}.{other}.more=9") == of(*chosen)
    assert of(*chosen, f"backbone.model={other}") != of(*chosen)


@pytest.mark.parametrize("name", ["clip", "stable_diffusion"])
def test_each_size_names_weights_of_its_own(name):
    sizes = settled(f"backbone={name}")["backbone"]["published"]
    files = {model: settled(f"backbone={name}", f"backbone.model={model}")["weights"] for model in sizes}
    assert {"checkpoint"} < files.keys()
    assert len({*files.values()}) == len(files)


def test_where_code_lies_is_not_in_the_hash():
    """Modules may move; which class is used is in it."""

    def moved(value):
        if isinstance(value, dict):
            return {key: moved(each) for key, each in value.items()}
        if isinstance(value, list):
            return [moved(each) for each in value]
        if isinstance(value, str) and value.startswith("vltune."):
            return f"vltune.moved.{value.rpartition('.')[2]}"
        return value

    chosen = itertools.product(choices("backbone"), TASKS, ("apt", "question_only"))
    for config in each_settled([f"backbone={b}", f"task={t}", f"method={m}"] for b, t, m in chosen):
        assert moved(config) != config
        assert identity(moved(config), FINGERPRINTS) == identity(config, FINGERPRINTS)
    assert of("method._target_=vltune.methods.lora.LoRA") != of()


def of_costs(*overrides):
    return of_cost(settled("mode=cost", *overrides))["hash"]


@pytest.mark.parametrize(
    "same", ["engine.lr=1", "seed=3", "dataset.images=shuffled", "engine.precision=bf16-mixed", "dataset.decode=fast"]
)
def test_how_is_trained_is_not_in_the_hash_of_costs(same):
    assert of_costs(same) == of_costs()


@pytest.mark.parametrize(
    "other",
    [
        *("method.prompts=3", "backbone.layers=3", "task=nlvr2", "dataset.answers=31", "method.sites_in=all"),
        *("backbone.protocol.text_len=15", "backbone.protocol.image=[32,64]"),
    ],
)
def test_what_is_counted_is_in_the_hash_of_costs(other):
    assert of_costs(other, "dataset=shapes") != of_costs("dataset=shapes")


@pytest.mark.parametrize(
    ("overrides", "chosen"),
    [
        (("backbone=sd_mini", "task=subject"), {}),
        (("backbone=sd_mini", "task=subject", "backbone.tokenizer.padding='[SEP]'"), {"padding": "[SEP]"}),
        (("backbone=sd_mini", "task=subject", "backbone.tokenizer.padding=null"), {"padding": "None"}),
        (("backbone=stable_diffusion", "task=subject"), {}),
        (("backbone=stable_diffusion", "task=subject", "backbone.model=sd21"), {"padding": "!"}),
        (("backbone=vilt",), {}),
    ],
)
def test_what_fills_texts_is_in_the_fingerprint_where_it_is_not_the_usual(overrides, chosen):
    assert tokenizer_choices(settled(*overrides)["backbone"]) == chosen


def test_costs_of_another_number_of_classes_are_others():
    one, other = (
        of_costs("backbone=clip_mini", "task=classification", "dataset=folder", f"dataset.classes={classes}")
        for classes in (10, 1000)
    )
    assert one != other


@pytest.mark.parametrize(
    ("setting", "chosen"),
    [
        ("dataset.few_shot_list", ("backbone=clip_mini", "task=classification", "dataset=dtd")),
        ("dataset.prompts", ("backbone=sd_mini", "task=subject")),
    ],
)
def test_of_a_file_what_it_holds_counts_and_not_where_it_lies(setting, chosen):
    assert of(*chosen, f"{setting}=/a/list.json") == of(*chosen, f"{setting}=b/other.json") != of(*chosen)


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
    assert identity(settled(project=tmp_path), FINGERPRINTS)["hash"] != of()


def defaults_in_code(spec):
    """{parameter: default} of what a configuration builds and does not spell out."""
    if not isinstance(spec, dict):
        return {}
    takes = inspect.signature(find(spec["_target_"])).parameters if "_target_" in spec else {}
    found = {name: parameter.default for name, parameter in takes.items() if name not in spec}
    found = {name: default for name, default in found.items() if default is not inspect.Parameter.empty}
    for value in spec.values():
        found |= defaults_in_code(value)
    return found


def test_no_default_that_decides_a_result_stands_in_the_code_alone():
    """It could change, and the hash would not.  `crop` may never: records hold no word of it."""
    found = {}
    chosen = itertools.product(choices("backbone"), TASKS)
    for config in each_settled([f"backbone={backbone}", f"task={task}"] for backbone, task in chosen):
        found |= defaults_in_code(config)
    for config in each_settled([f"method={method}"] for method in choices("method")):
        found |= defaults_in_code(config["method"])
    # All but the first are what the run gives: a tokenizer, and the data set's.
    assert found == {"crop": True, "tokenizer": None, "randaugment": None, "decode": "exact", "augment": None}
    assert {field.name for field in dataclasses.fields(Settings)} <= settled()["engine"].keys()


LATER = {
    (group, key): mark.value
    for group in GROUPS
    for key, kind in declarations(group).items()
    for mark in marks(kind, Before)
}


def test_what_came_after_the_first_records_is_known():
    assert {("dataset", "decode"), ("engine", "eval_examples"), ("method", "always_trained")} <= LATER.keys()


@pytest.mark.parametrize(("group", "key"), LATER)
def test_a_setting_that_came_later_leaves_the_hash_of_earlier_records(group, key):
    config = settled()
    settings = config[group] | {key: LATER[group, key]}
    earlier = {name: value for name, value in settings.items() if name != key}
    assert identity(config | {group: settings}, FINGERPRINTS)["hash"] == of()
    assert identity(config | {group: earlier}, FINGERPRINTS)["hash"] == of()
    assert identity(config | {group: settings | {key: "another"}}, FINGERPRINTS)["hash"] != of()


def test_a_module_may_be_moved_and_no_hash_changes(monkeypatch):
    """The modules of a method, a transform and of the identity itself, under other names and without their old ones."""
    config = settled("method=lora", "backbone=vilt")
    before = identity(config, FINGERPRINTS)["hash"]
    for old, new in (
        ("vltune.methods.lora", "vltune.methods.low_rank"),
        ("vltune.data.transforms", "vltune.data.resize"),
        ("vltune.runs.identity", "vltune.runs.names"),
    ):
        monkeypatch.setitem(sys.modules, new, importlib.import_module(old))
        monkeypatch.setattr(sys.modules[old], "__name__", new)
        monkeypatch.setitem(sys.modules, old, None)  # to import it is an error
        config = json.loads(json.dumps(config).replace(old, new))
    assert find("vltune.methods.low_rank.LoRA").__name__ == "LoRA"
    with pytest.raises(UserError, match="no such thing in vltune"):
        find("vltune.methods.lora.LoRA")
    assert sys.modules["vltune.runs.names"].identity(config, FINGERPRINTS)["hash"] == before


def test_the_precision_is_settled_before_the_hash():
    assert settled("engine.accelerator=cpu")["engine"]["precision"] == "32-true"
    assert settled("mode=cost")["engine"]["precision"] == "32-true"
    assert settled("engine.precision=bf16-mixed")["engine"]["precision"] == "bf16-mixed"


def test_what_files_hold_is_in_the_hash():
    assert len({of(), of(weights={"backbone": "v"}), of(weights={"text": "w"}), of(tokenizer={}), of(data="e")}) == 5


def test_a_configuration_names_only_what_is_in_vltune():
    with pytest.raises(UserError, match=r"os\.system: a configuration may only name what is in vltune"):
        build({"_target_": "os.system", "command": "true"})


def test_a_misspelt_setting_of_a_method_is_told():
    with pytest.raises(
        UserError, match=r"method\.rnak: lora has no such setting; it has rank, dropout, init_std, roles"
    ):
        build_method(settled("method=lora", "+method.rnak=3")["method"])
