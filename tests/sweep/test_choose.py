"""The learning rates that the tables use are the best on validation, of as many trials for every method."""

from pathlib import Path

import pytest
import yaml
from composed import settled
from fabricated import Root
from predicted import predicted

from vltune.catalogue import methods
from vltune.errors import UserError
from vltune.sweep import choose

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "rates")


def tried(root, method, rate, *scores, name="vqa_score", **more):
    for seed, score in enumerate(scores):
        config, metrics = {"engine": {"lr": rate}}, {"val": {name: score}, "test": None}
        hash_ = f"{hash((method, rate)) & 0xFFFFFFFF:08x}"
        root.add(**{"method": method, "seed": seed, "hash": hash_, "config": config, "metrics": metrics, **more})


def test_the_committed_choice_is_made_of_the_committed_runs(tmp_path):
    made = choose.write(ROOT / "results" / "learning_rates", tmp_path, methods(ROOT / "conf"))
    assert {file.name for file in made} == {file.name for file in (ROOT / "conf" / "rates").iterdir()}
    for file in made:
        assert file.read_text() == (ROOT / "conf" / "rates" / file.name).read_text()


def test_the_best_mean_over_seeds_wins_and_what_was_tried_is_told(root, tmp_path):
    tried(root, "lora", 1e-3, 50.0, 54.0)
    tried(root, "lora", 2.5e-4, 53.0, 53.0)
    tried(root, "apt", 1e-3, 60.0, 60.0)
    tried(root, "apt", 1e-2, 60.0, 60.0)
    (file,) = choose.write(root.folder, tmp_path / "out")
    text = file.read_text()
    assert file.name == "vilt_mini.yaml"
    assert "vqa_score on the validation split of vqa-shapes" in text
    assert "2 seeds a rate" in text
    assert "lora: 2.5e-04 # 2.5e-04: 53.00, 1e-03: 52.00\n" in text
    assert "apt: 1.0e-03 # 1e-03: 60.00, 1e-02: 60.00\n" in text
    assert yaml.safe_load(text) == {"lora": 2.5e-4, "apt": 1e-3}


@pytest.mark.parametrize(
    ("sweeps", "begins"),
    [
        (["own", "own"], "# Made by +sweep=own: the best rate of each method by"),
        (["own", "more"], "# Made by +sweep=more and +sweep=own: the best rate of each method by"),
        (["own", None], "# the best rate of each method by"),
    ],
)
def test_a_choice_begins_with_the_sweeps_of_its_runs(root, tmp_path, sweeps, begins):
    for method, sweep in zip(("lora", "apt"), sweeps, strict=True):
        tried(root, method, 1e-3, 50.0, sweep=sweep)
    (file,) = choose.write(root.folder, tmp_path / "out")
    assert file.read_text().startswith(begins)


def test_what_was_chosen_for_other_methods_stays(root, tmp_path):
    tried(root, "lora", 1e-3, 50.0)
    (tmp_path / "vilt_mini.yaml").write_text("# Earlier.\napt: 3.0e-03 # 1e-03: 40.00\nlora: 1.0e-02 # 1e-02: 9.00\n")
    (file,) = choose.write(root.folder, tmp_path)
    assert yaml.safe_load(file.read_text()) == {"lora": 1e-3, "apt": 3e-3}
    assert "apt: 3.0e-03 # 1e-03: 40.00\n" in file.read_text()


@pytest.mark.parametrize("of_each", [(3e-3, 3e-3, 3e-3), (1e-3, 3e-3, 0.1), (None, None, None)])
def test_a_head_has_one_rate_or_one_that_goes_along_with_the_other(root, tmp_path, of_each):
    heads(*zip((1e-4, 3e-4, 1e-2), of_each, strict=True))(root)
    assert choose.write(root.folder, tmp_path / "out")


@pytest.mark.parametrize(("backbone", "task"), [("vilt", "vqa"), ("meter", "nlvr2"), ("clip", "classification")])
def test_every_recipe_reads_what_was_chosen(backbone, task):
    chosen = [f"backbone={backbone}", f"task={task}", "method=lora"]
    if task == "classification":
        chosen.append("dataset=dtd")
    assert settled(*chosen, "+rates.lora=0.125")["engine"]["lr"] == 0.125
    assert settled(*chosen)["engine"]["lr"] < 0.01


def test_each_backbone_has_a_file_by_its_task_s_own_score(root, tmp_path):
    tried(root, "lora", 1e-3, 50.0)
    tried(root, "lora", 1e-3, 70.0, name="accuracy", task="nlvr2", backbone="meter_mini")
    first, second = choose.write(root.folder, tmp_path / "out")
    assert (first.name, second.name) == ("meter_mini.yaml", "vilt_mini.yaml")
    assert "accuracy on the validation split of nlvr2-shapes" in first.read_text()


def fewer_rates(root):
    tried(root, "lora", 1e-3, 50.0)
    tried(root, "lora", 1e-2, 50.0)
    tried(root, "apt", 1e-3, 50.0)


def fewer_seeds(root):
    tried(root, "lora", 1e-3, 50.0, 51.0)
    tried(root, "lora", 1e-2, 50.0)


def unfinished(root):
    tried(root, "lora", 1e-3, 50.0)
    root.fail(method="apt")


def two_tasks(root):
    tried(root, "lora", 1e-3, 50.0)
    tried(root, "lora", 1e-2, 50.0, name="accuracy", task="nlvr2")


def two_sizes(root):
    tried(root, "lora", 1e-3, 50.0)
    tried(root, "lora", 1e-3, 51.0, hash="ffffffff")


def two_lengths(root):
    tried(root, "apt", 1e-3, 50.0, config={"engine": {"lr": 1e-3, "max_steps": 100, "threads": 1, "head_lr": 1}})
    tried(root, "lora", 1e-3, 50.0, config={"engine": {"lr": 1e-3, "max_steps": 200, "threads": 2, "head_lr": 2}})


def two_ranks(root):
    tried(root, "lora", 1e-3, 50.0, config={"engine": {"lr": 1e-3}, "method": {"rank": 4}})
    tried(root, "lora", 1e-2, 51.0, config={"engine": {"lr": 1e-2}, "method": {"rank": 8}})


def two_sides(root):
    tried(root, "apt", 1e-3, 50.0, config={"engine": {"lr": 1e-3}, "backbone": {"image_size": 64}})
    tried(root, "lora", 1e-3, 50.0, config={"engine": {"lr": 1e-3}, "backbone": {"image_size": 96}})


def heads(*pairs):
    """Runs of a rate and its head's each."""

    def make(root):
        for rate, head in pairs:
            tried(root, "lora", rate, 50.0, config={"engine": {"lr": rate, "head_lr": head}})

    return make


def no_rate(root):
    tried(root, "lora", None, 50.0)


def broken(root):
    tried(root, "lora", 1e-3, 50.0)
    next(root.folder.rglob("*.json")).with_name("half.json").write_text("{")


def contradicted(root):
    tried(root, "lora", 1e-3, 50.0)
    predicted(next(root.folder.rglob("*.json")).with_suffix(".parquet"), [("val", 0, "red", 0.4)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (fewer_rates, "vilt_mini: apt has rates with 1 seeds, lora with 1, 1: give every method as many rates"),
        (fewer_seeds, "lora has rates with 1, 2 seeds, lora with 1, 2: give every method as many rates"),
        (unfinished, "the run is failed: start the sweep again"),
        (two_tasks, "has accuracy on the validation split of nlvr2-shapes, and vqa_score on"),
        (two_sizes, "a second run of its method, rate 0.001 and seed: keep the one to choose from"),
        (two_ranks, "method.rank is "),  # whichever comes first
        (two_sides, "backbone.image_size is 96, and 64 of others: choose among runs that differ in method"),
        (two_lengths, "engine.max_steps is 200, and 100 of others: choose among runs that differ in method, rate and"),
        (
            lambda root: root.add(60.0),
            "the test split was read, which is no part of a choice: use engine.evaluate=[val]",
        ),
        (
            lambda root: root.add(metrics={"val": None, "test": None}),
            "has no primary metric on validation",
        ),
        (lambda root: (root.folder / "records").mkdir(parents=True), "holds no runs: start python run.py -m +sweep="),
        (
            heads((1e-3, 3e-3), (1e-2, 0.1)),
            "vilt_mini: lora: engine.head_lr is 0.003 with engine.lr=0.001, 0.1 with engine.lr=0.01: choose among runs",
        ),
        (heads((1e-3, None), (1e-2, 0.1)), "engine.head_lr is None with engine.lr=0.001, 0.1 with engine.lr=0.01"),
        (no_rate, "field 'config.engine.lr' is null: the record says no learning rate to choose"),
        (broken, "broken JSON ("),
        (contradicted, "field 'metrics.val.vqa_score' is 50.00, its predictions give 40.00"),
    ],
)
def test_what_would_be_no_fair_choice_is_refused(root, tmp_path, make, message):
    make(root)
    with pytest.raises(UserError) as error:
        choose.write(root.folder, tmp_path / "out")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
