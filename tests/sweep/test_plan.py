"""What a sweep's runs are, each once, whatever is there yet."""

import json
import shutil
from pathlib import Path

import pytest
from fabricated import fabricate
from test_cli import invoke

from vltune.assemble.data import open_data
from vltune.assemble.weights import fingerprints
from vltune.errors import UserError
from vltune.records import record as records
from vltune.runs.identity import identity
from vltune.settings.config import RunConfig
from vltune.sweep import estimate, launch, plan, status
from vltune.sweep.compose import configurations
from vltune.sweep.job import job

PROJECT = Path(__file__).parents[2]

ROOT = Path(__file__).parents[2]
WORLD = "{layout: '${task.layout}', seed: 0, images: {train: 6, val: 3, test: 3}}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tmp_path_factory.mktemp("world") / "shapes"


@pytest.fixture
def asked(world, tmp_path, monkeypatch):
    """The arguments of runs of LoRA; their plans are kept in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    results = f"results_dir={tmp_path / 'results'}"
    return ["method=lora", "task=vqa", f"dataset.data_dir={world}", f"dataset.generate={WORLD}", results]


def planned(arguments):
    return plan.plan(ROOT, arguments)


def finish(planned, number=0):
    """A record of a run, as if it had been run."""
    run, config = planned.runs[number], planned.configs[number]
    _, backbone, task, name = Path(run.places[0]).parts
    method, hash, seed = name.removesuffix(".json").rsplit("-", 2)
    who = {"backbone": backbone, "task": task.split("-")[0], "dataset": task.split("-")[1]}
    who |= {"method": method, "hash": hash, "seed": int(seed.removeprefix("seed"))}
    return records.write(fabricate(config=config, fingerprints=None, **who), planned.root)


def test_a_plan_says_the_same_before_and_after_its_data_is_generated(asked, tmp_path):
    new = [f"dataset.data_dir={tmp_path / 'new'}" if each.startswith("dataset.data_dir") else each for each in asked]
    before = planned(new)
    finish(before)
    shutil.rmtree(tmp_path / "new")
    assert [each.state for each in launch.standings(planned(new))] == ["finished"]
    assert planned(new) == before
    assert (tmp_path / "new" / "vqav2" / "manifest.json").exists()


@pytest.mark.parametrize(
    "alike",
    [
        "seed=0,0,0",
        "engine.lr=1e-3,0.001",
        "engine.lr=0.001,.001,10.0e-4",
        "engine.clip=1,1.0",
        "engine.evaluate=[val,val],[val]",
        "engine.evaluate=[val,test],[test,val]",
        "engine.workers=0,1",
        "engine.betas=[0.9,0.98],[0.90,0.980]",
        "method=lora,lora",
        "method.roles=[query,value],[query,value]",
    ],
)
def test_what_says_the_same_is_one_run(asked, alike, capsys):
    count = len(alike.partition("=")[2].replace("],[", "];[").split(";" if "],[" in alike else ","))
    found = planned([*asked, alike])
    assert len(found.runs) == 1
    launch.tell_alike(found)
    told = f"{count - 1} of {count} runs are others in other words (one record), and count once"
    assert told in capsys.readouterr().err


def test_what_says_another_thing_is_another_run(asked):
    found = planned([*asked, "seed=0,1", "engine.lr=1e-3,2e-3", "engine.precision=32-true,bf16-mixed"])
    assert len({run.places[0] for run in found.runs}) == len(found.runs) == len(found.configs) == len(found.jobs) == 8


def test_runs_whose_data_is_not_there_are_told_apart_and_their_records_found(asked, tmp_path):
    table = ["method=lora,apt", "seed=0,0", "dataset=vqav2", f"dataset.data_dir={tmp_path / 'nowhere'}", asked[-1]]
    found = launch.standings(planned([*table, "backbone=vilt_mini"]))
    assert [each.state for each in found] == ["missing", "missing"]
    assert "nowhere" in found[0].error


def test_a_record_is_found_where_its_data_is_not(asked, tmp_path, world):
    """As of committed results, on a laptop without data."""
    copy = shutil.copytree(world, tmp_path / "copy")
    given = [each for each in asked if not each.startswith(("dataset.generate", "dataset.data_dir"))]
    given += ["dataset=vqav2", f"dataset.data_dir={copy}", "backbone=vilt_mini", "dataset.subfolder=vqav2"]
    there = planned(given)
    assert there.runs[0].missing is None
    fingerprints = plan.Places(there.root)
    record = json.loads(finish(there).read_text())
    config = there.configs[0]
    record["fingerprints"] = {name: ask(config) for name, ask in fingerprints.parts.items()}
    records.write(record, there.root)
    shutil.rmtree(copy)
    assert [each.state for each in launch.standings(planned(given))] == ["finished"]
    assert [each.state for each in launch.standings(planned([*given, "engine.lr=0.5"]))] == ["missing"]


def test_a_job_knows_the_threads_of_its_run_s_configuration(asked):
    found = planned([*asked, "engine.threads=3"])
    retried = job(found.runs[0], "engine.micro_batch_size=2")
    assert [each.threads for each in launch.with_threads(found, [retried])] == [3]


def test_files_of_configuration_behind_a_link_are_among_those_of_a_plan(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "own.yaml").touch()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "method").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert plan.written(tmp_path) == [tmp_path / "conf" / "method" / "own.yaml"]


def test_records_behind_a_link_tell_how_long_runs_take(tmp_path):
    records.write(fabricate(config={"engine": {"epochs": 3}}, macs=1000), tmp_path)
    (tmp_path / "records" / "vilt_mini").rename(tmp_path / "elsewhere")
    (tmp_path / "records" / "vilt_mini").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(estimate.Estimator([tmp_path]).finished) == 1


def timed(root, seconds, **more):
    config = {"engine": {"max_steps": 10, "batch_size": 8}}
    provenance = fabricate()["provenance"] | {"seconds": seconds, "phases": {"train": seconds}}
    return records.write(fabricate(config=config, macs=1000, provenance=provenance, **more), root)


def test_the_first_folder_of_results_that_knows_a_kind_of_run_tells(tmp_path):
    ours, others = tmp_path / "ours", tmp_path / "others"
    timed(ours, 100.0)
    for seed in range(3):
        timed(others, 3000.0, seed=seed)
        timed(others, 500.0, seed=seed, method="apt")
    names = {"backbone": "vilt_mini", "task": "vqa", "dataset": "shapes"}
    sizes = {"seed": 9, "devices": 1, "nodes": 1, "force": False, "places": []}
    found = estimate.Estimator([ours, others])
    config = {"engine": {"max_steps": 10}}
    told = {
        method: found(plan.Run([], "", **names, method=method, **sizes), config) for method in ("lora", "apt", "full")
    }
    assert {method: (each.seconds, each.basis) for method, each in told.items()} == {
        "lora": (100.0, "records"),
        "apt": (500.0, "records"),
        "full": (100.0, "others' records"),
    }
    assert found.rate == estimate.Estimator([ours]).rate


def test_what_is_forced_is_to_do_and_no_more_runs_are_side_by_side_than_there_are(asked):
    forced = [*asked, "force=true", "hydra.launcher.parallel=4"]
    file = finish(planned(forced))
    record = records.read(file)
    record["cost"]["macs"] = 1000
    records.write(record, planned(forced).root)
    said = invoke("sweep", "plan", plan.UNNAMED, *forced, "--project", str(ROOT)).output
    assert "1 runs, 1 to do: 30 s of one" in said
    assert "here, 1 at a time: about 30 s" in said
    said = invoke("sweep", "plan", plan.UNNAMED, *asked, "--project", str(ROOT)).output
    assert "1 runs, 0 to do: 0 s of one" in said


def test_a_command_that_is_told_is_of_this_sweep(asked):
    found = plan.Plan(Path(), "mini", ["+sweep=mini", "results_dir=a b", "seed=0,1"], Path("a b"), {}, [])
    assert found.typed("status") == "vltune sweep status mini 'results_dir=a b' seed=0,1"
    elsewhere = plan.Plan(Path("p"), plan.UNNAMED, ["seed=0,1"], Path("results"), {}, [])
    assert elsewhere.typed("cancel") == "vltune sweep cancel unnamed seed=0,1 --project p"


def test_a_plan_is_built_once(asked, monkeypatch):
    first = planned([*asked, "seed=0,1,1", "engine.lr=1e-3,2e-3"])
    assert first.alike == 2
    monkeypatch.setattr(plan, "built", None)
    assert planned([*asked, "seed=0,1,1", "engine.lr=1e-3,2e-3"]) == first


def test_a_plan_is_built_anew_where_what_it_follows_from_has_changed(asked, world, monkeypatch):
    def is_kept():
        return plan.kept(ROOT, asked) is not None

    planned(asked)
    assert is_kept()
    monkeypatch.setattr(plan.verdicts, "stamp", lambda: "other code")
    assert not is_kept()
    planned(asked)
    assert is_kept()
    (manifest := world / "vqav2" / "manifest.json").touch()
    assert manifest in map(Path, json.loads(plan.place(ROOT, asked).read_text())["read"])
    assert not is_kept()


def test_a_plan_that_follows_from_the_environment_is_not_kept(asked, tmp_path, monkeypatch):
    asked[-1] = "results_dir=${oc.env:VLTUNE_OF_A_TEST}"
    for name in ("first", "second"):
        monkeypatch.setenv("VLTUNE_OF_A_TEST", str(tmp_path / name))
        assert planned(asked).root == tmp_path / name


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"stamp": 1}', '{"runs": [{}], "read": []}', "[" * 100_000, "é"]
)
def test_a_kept_plan_that_is_damaged_is_made_anew(asked, text):
    whole = planned(asked)
    plan.place(ROOT, asked).write_text(text, encoding="latin-1")
    assert plan.kept(ROOT, asked) is None
    assert planned(asked) == whole


def test_a_plan_that_cannot_be_kept_is_a_plan(asked, tmp_path):
    (tmp_path / "outputs").write_text("")
    assert len(planned(asked).runs) == 1


FOREIGN = ["[]", "null", "7", "{", '{"status": "finished"}', '{"schema": 9}', "[" * 100_000]


@pytest.mark.parametrize("text", FOREIGN)
def test_what_is_no_record_is_no_record(asked, text):
    found = planned(asked)
    file = found.root / found.runs[0].places[0]
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert [each.state for each in launch.standings(found)] == ["todo"]
    assert status.peek(file) == {}
    [line] = estimate.lines(found, [True], estimate.Estimator([found.root]))
    assert line.seconds is None


@pytest.mark.parametrize(
    "engine", [None, {}, {"max_steps": None}, {"epochs": 3}, {"max_steps": 5, "batch_size": None}, {"lr": 1.0}]
)
def test_a_record_of_elsewhere_tells_what_it_has(asked, engine):
    found = planned(asked)
    record = json.loads(finish(found).read_text())
    record["config"] = {} if engine is None else {"engine": engine}
    record["cost"]["macs"] = 1000
    records.write(record, found.root)
    [line] = estimate.lines(found, [True], estimate.Estimator([found.root]))
    assert line.runs == 1


def test_steps_are_not_compared_with_epochs(asked):
    found = planned([*asked, "engine.max_steps=10"])
    record = json.loads(finish(found).read_text())
    record["cost"]["macs"] = 1000
    record["provenance"] |= {"seconds": 30.0, "phases": {"train": 20.0}}
    records.write(record, found.root)

    def seconds(*more):
        other = planned([*asked, *more])
        [line] = estimate.lines(other, [True], estimate.Estimator([found.root]))
        return line.seconds

    assert seconds("engine.max_steps=20") == 50.0
    assert seconds("engine.max_steps=null", "engine.epochs=20") != 50.0


def test_epochs_are_of_a_share_of_the_data():
    def of(epochs, share):
        return {"engine": {"epochs": epochs}, "dataset": {"train_fraction": share, "train": ["train"]}}

    record = {"provenance": {"seconds": 30.0, "phases": {"train": 20.0}}, "config": of(10, 1.0)}
    assert estimate.scaled(record, of(100, 0.1)) == pytest.approx(30.0)
    assert estimate.scaled(record, of(10, 0.5)) == pytest.approx(20.0)
    steps = record | {"config": of(10, 1.0) | {"engine": {"max_steps": 10}}}
    assert estimate.scaled(steps, of(10, 0.1) | {"engine": {"max_steps": 20}}) == pytest.approx(50.0)
    assert estimate.training_examples(of(1, 0.1), {"train": [{"texts": 300}, {"texts": 700}]}) == 100


def test_a_folder_that_cannot_be_made_is_told(asked, tmp_path):
    (tmp_path / "file").write_text("")
    given = [f"dataset.data_dir={tmp_path / 'file'}" if "data_dir" in each else each for each in asked]
    with pytest.raises(UserError, match=r"dataset\.data_dir=.*/file: is a file, not a folder"):
        planned(given)


def test_one_sweep_has_one_folder_of_results(asked):
    with pytest.raises(UserError, match=r"a sweep has one folder of results"):
        planned([*asked[:-1], "results_dir=a,b"])


def test_runs_composed_together_are_composed_as_each_alone():
    """Of methods that set more than their own group, in the order in which one could leave something to the next."""
    methods = ("linear_probe", "coop", "tip_adapter_f", "lora", "zero_shot", "tip_adapter", "apt")
    jobs = [["backbone=clip_mini", "task=classification", f"method={method}"] for method in methods]
    together = configurations(PROJECT, jobs)
    assert together == [configurations(PROJECT, [job])[0] for job in jobs]
    assert [config["task"]["classifier"] for config in together] == [
        *("linear", "text", "cache", "text", "text", "cache", "text")
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["backbone=vilt_mini", "task=vqa"],
        ["backbone=clip_mini", "task=classification"],
        ["backbone=sd_mini", "task=subject", "dataset.subject=banded_cross"],
        ["backbone=sd_mini", "task=subject", "dataset.prompts=OWN"],
    ],
    ids=" ".join,
)
def test_a_plan_says_where_a_run_writes(arguments, tmp_path, monkeypatch):
    """Data may be less than its folder: what is read of it follows from other settings too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.txt").write_text("a {token} {class} on a {class}\n")
    given = [argument.replace("OWN", str(tmp_path / "own.txt")) for argument in arguments]
    given += ["method=lora", "engine.precision=32-true", f"dataset.data_dir={tmp_path / 'shapes'}"]
    found = planned([*given, f"results_dir={tmp_path}"])
    config = RunConfig.of(found.configs[0])
    of = fingerprints(config.weights, config.backbone, open_data(config).fingerprint)
    [place] = found.runs[0].places
    assert Path(place) == records.path(Path(), identity(found.configs[0], of))
