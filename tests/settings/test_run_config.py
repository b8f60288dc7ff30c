"""What a run is handed says what its record says: every part, and the plain configuration that they are of."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from composed import composed
from round_trip import check_round_trip

from vltune.experiment.evaluate import whole
from vltune.records import record as records
from vltune.runs.identity import identity
from vltune.settings.check import declared
from vltune.settings.config import RunConfig, before
from vltune.settings.groups import GROUPS
from vltune.settings.run import RunSettings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "overrides",
    [
        ["mode=pretrain"],
        ["mode=pretrain", "backbone=meter_mini"],
        ["+match=params", "method=lora"],
        ["+match=macs", "method=adapter", "seed=3", "force=true", "busy=leave"],
        ["mode=eval", "from=results/x.json", "weights=null"],
        ["logger=wandb", "+sweep=ablation_apt", "variant=in_towers", "backbone=meter_mini"],
        ["engine.lr=1", "engine.max_steps=7", "engine.evaluate=[test,val]", "dataset.train_fraction=0.25"],
        ["~dataset.decode", "~method.always_trained"],
    ],
)
def test_the_parts_say_what_was_composed(overrides):
    """tests/test_configs.py: of every method on every backbone and task."""
    check_round_trip(composed(*overrides))


def test_the_parts_say_what_every_committed_record_says():
    files = [file for kind in ("records", "costs") for file in (ROOT / "results").rglob(f"{kind}/*/*/*.json")]
    assert len(files) > 400
    here = composed()
    for file in files:
        recorded = records.read(file)["config"]
        plain = whole(recorded, here, file)
        check_round_trip(plain)
        assert identity(RunConfig.of(plain).plain, {})["hash"] == identity(recorded, {})["hash"], file


def test_a_setting_that_a_record_is_older_than_has_the_value_that_every_run_had():
    assert before("dataset") == {
        "train_fraction": 1.0,
        "train_fraction_seed": 0,
        "decode": "exact",
        "few_shot_list": None,
        "augment": None,
        "classes": 30,
        "template": "a {}",
    }
    assert before("method") == {"always_trained": "paper"}
    plain = composed("~dataset.decode", "dataset.train_fraction=0.5", "~method.always_trained")
    config = RunConfig.of(plain)
    assert (config.dataset["decode"], config.dataset["train_fraction"]) == ("exact", 0.5)
    assert config.method["always_trained"] == "paper"
    assert "decode" not in config.plain["dataset"]
    assert "always_trained" not in config.plain["method"]


def test_every_setting_and_group_of_a_run_is_a_part():
    parts = {field.name.rstrip("_") for field in fields(RunConfig)} - {"plain"}
    assert parts == declared(RunSettings).keys() | GROUPS.keys()


def test_other_groups_are_taken_in_their_place():
    config = RunConfig.of(composed("seed=2"))
    other = config.changed(method=config.plain["method"] | {"rank": 3}, match={"by": "params"})
    assert (other.method["rank"], other.match, other.seed) == (3, {"by": "params"}, 2)
    assert [*other.plain] == [*config.plain, "match"]
    assert config.method["rank"] != 3
    with pytest.raises(FrozenInstanceError):
        config.seed = 3
