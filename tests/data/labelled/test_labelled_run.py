"""What a run and `vltune check` get of labelled images."""

from pathlib import Path

import pytest
from composed import settled
from labelled_layouts import official
from typer.testing import CliRunner

from vltune.assemble.data import facts, open_data
from vltune.cli import app
from vltune.configuration import check as check_config
from vltune.data.dataset import preparation
from vltune.errors import UserError
from vltune.settings.config import RunConfig

CONF = Path(__file__).parents[3] / "conf"
SETS = sorted(file.stem for file in (CONF / "dataset").glob("*.yaml") if "reader: labelled" in file.read_text())


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    out = tmp_path_factory.mktemp("pets")
    preparation("oxford_pets")(official("oxford_pets", tmp_path_factory.mktemp("raw")), out, progress=False)
    return out


def opened(folder, *overrides, **task):
    """The data of a run whose task takes labelled images."""
    found = settled("dataset=oxford_pets", f"dataset.data_dir={folder}", "engine.workers=0", *overrides)
    found["task"] |= {"reader": "labelled", **task}
    return open_data(RunConfig.of(found))


def test_a_run_gets_its_roles_shots_and_seed(pets):
    data = opened(pets, "seed=1", protocol="few_shot", shots=2)
    train = data.training()
    assert (train.batch_size, train.steps_per_epoch) == (6, 1)  # of engine.batch_size=32
    [batch] = train.batches(0, 1, 1, 0, 1)
    assert sorted(batch["label"].tolist()) == [0, 0, 1, 1, 2, 2]
    assert train.dataset.selection["seed"] == 1
    assert train.dataset.transform.augments
    assert [len(data.split(name)) for name in ("val", "test")] == [6, 9]
    assert data.facts["classes"] == ["tabby cat", "Basset Hound", "red fox"]
    assert data.facts["templates"] == ["a photo of a {}, a type of pet."]


def test_several_devices_share_the_few_images_evenly(pets, capsys):
    data = opened(pets, "engine.devices=4", protocol="few_shot", shots=2)
    assert data.training().batch_size == 4
    assert "2 of 6 training images stay out of each epoch" in capsys.readouterr().err


def test_all_images_still_have_to_fill_a_batch(pets):
    with pytest.raises(UserError, match=r"engine\.batch_size=32 exceeds the 18 training examples"):
        opened(pets, protocol="full").training()


def test_another_template_is_chosen_by_the_task(pets):
    own = "dataset.template='the animal {}'"
    assert opened(pets, own, protocol="few_shot", shots=1, template="own").facts["templates"] == ["the animal {}"]
    with pytest.raises(UserError, match=r"add task\.template=own"):
        _ = opened(pets, own, protocol="few_shot", shots=1, template="first").facts


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{0}", "{} {x}"])
def test_a_template_without_a_place_for_the_name_is_refused(template):
    found = settled("dataset=dtd")
    found["dataset"]["template"] = template
    with pytest.raises(UserError, match=r"dataset\.template=.* must be a text that holds \{\} once"):
        check_config(found)


@pytest.mark.parametrize("name", SETS)
def test_every_data_set_has_settings_that_a_run_can_have(name):
    found = settled(f"dataset={name}")
    check_config(found)
    dataset = found["dataset"]
    assert (dataset["name"], dataset["data_dir"], dataset["augment"]) == (name, f"data/{name}", "crop_flip")
    known = facts(dataset)
    assert len(known["classes"]) == dataset["classes"]
    assert known["templates"] == [dataset["template"]]


def test_a_recipe_leaves_a_data_sets_own_augmentation():
    typed = "backbone=clip", "task=classification"
    assert settled(*typed, "dataset=dtd")["dataset"]["augment"] == "crop_flip"
    assert (
        settled(*typed, "dataset=shapes", "task.layout=places")["dataset"]["augment"] is None
    )  # left would become right


def test_there_are_thirteen():
    assert len(SETS) == 13


def test_check_shows_classes_with_their_prompts(pets):
    done = CliRunner().invoke(app, ["check", str(pets), "--readers", "1"])
    assert done.exit_code == 0
    told = "class 0, tabby cat: 'a photo of a tabby cat, a type of pet.'; train 6, val 2, test 3"
    assert told in done.output
    assert "train: 6 images a class" in done.output
    assert "all is well" in done.output
