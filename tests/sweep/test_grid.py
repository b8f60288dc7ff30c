"""From `+sweep=NAME key=a,b` to runs: the same as Hydra's own sweeper and composition give, in less time."""

import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from presented import METHODS, PAPER

from vltune.catalogue import APART
from vltune.errors import UserError
from vltune.sweep import compose as compose_module
from vltune.sweep import grid
from vltune.sweep.compose import configurations

ROOT = Path(__file__).parents[2]
ASKED = [
    ["method=lora,apt", "seed=range(0,3)"],
    ["method.rank=2,4", "method=lora", "engine.lr=1e-3,2e-3"],
    ["task=vqa,retrieval", "backbone=meter_mini,vilt_mini", "seed=5"],
    ["method=apt", "method.roles=[attention_output],[feed_forward_output]", "++engine.clip=1.0"],
]


@pytest.mark.parametrize("arguments", ASKED, ids=" ".join)
def test_jobs_are_those_of_hydras_sweeper(arguments):
    theirs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(arguments), None)[0]
    assert sorted(map(sorted, grid.expand(ROOT, arguments).jobs)) == sorted(map(sorted, theirs))


SOME = 5
SWEPT = [
    *([f"+sweep={file.stem}"] for file in sorted(ROOT.glob("sweeps/*.yaml"))),
    ["+sweep=learning_rates", "method=lora,full,question_only", "trial=low,high"],
    ["+sweep=ablation_apt", "seed=0"],
    ["+sweep=mini", "seed=0", "backbone=meter_mini", "task=nlvr2"],
    ["method=lora,apt", "method.dropout=0.2,0.3"],
    ["engine.lr=1e-3,2e-3", "engine.head_lr=${engine.lr}"],
    ["dataset.generate={seed: 5}", "dataset.generate.seed=6,7"],
    ["seed=0,1", "engine.max_steps=${oc.select:seed,7}"],
    ["weights=null,x", "seed=1,2"],
    ["+match=params", "method=lora,adapter"],
    ["mode=pretrain", "task=pretraining", "method=full,lora"],
    ["method=lora,apt", "method.roles=[query],[value]"],
    ["method=lora,apt", "seed=0,1", "++method.rank=3"],
    ["method=lora,apt", "engine=default", "backbone=meter_mini", "seed=0,1"],
]


@pytest.mark.parametrize("arguments", [*ASKED, *SWEPT], ids=" ".join)
def test_configurations_are_those_that_hydra_composes(arguments):
    jobs = grid.expand(ROOT, arguments).jobs
    jobs = jobs[:: max(1, len(jobs) // SOME)]  # Hydra takes its time
    found = configurations(ROOT, jobs)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for job, config in zip(jobs, found, strict=True):
            assert config == OmegaConf.to_container(compose("run", job), resolve=True)


@pytest.mark.parametrize("set_before", ["++seed=4", "weights=${backbone.name}", "++engine.lr=3"])
def test_what_one_run_sets_is_not_in_the_next(set_before):
    later = [["engine.lr=3"], ["backbone=meter_mini"]]
    assert configurations(ROOT, [[set_before], *later])[1:] == configurations(ROOT, later)


def compositions(monkeypatch, arguments, project=ROOT):
    """How many of the configurations Hydra composes, and what is found."""
    jobs, composed, seen = grid.expand(project, arguments).jobs, compose_module.composed, []
    monkeypatch.setattr(
        compose_module, "composed", lambda *given, **more: seen.append(given) or composed(*given, **more)
    )
    found = configurations(project, jobs)
    with initialize_config_dir(str(project / "conf"), version_base="1.3"):
        for job, config in zip(jobs, found, strict=True):
            assert config == OmegaConf.to_container(compose("run", job), resolve=True)
    return len(seen), len(jobs)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["method=lora,apt,full", "seed=0,1"], 2),  # one looks which groups stand alone
        (["method=lora,apt", "backbone=vilt_mini,meter_mini"], 3),
        (["method=lora,apt", "method.dropout=0.2,0.3"], 2),
        (["method=lora,apt", "++method.rank=3"], 3),
        (["task=vqa,nlvr2"], 3),  # the data set and the recipe follow from it
        (["mode=cost,pretrain", "method=full,lora"], 4),  # pretraining alone chooses a method
    ],
    ids=str,
)
def test_choices_that_stand_alone_are_composed_once(monkeypatch, arguments, count):
    assert compositions(monkeypatch, arguments)[0] == count


def with_file(folder, name, text):
    shutil.copytree(ROOT / "conf", folder / "conf", symlinks=True)
    shutil.copytree(ROOT / "sweeps", folder / "sweeps")
    (folder / "conf" / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("recipe/vilt_mini-vqa.yaml", "# @package _global_\nmethod: {dropout: 0.7}\n"),
        ("recipe/vilt_mini-vqa.yaml", "# @package method\ndropout: 0.7\n"),
        ("recipe/vilt_mini-vqa.yaml", "# @package _global_\ndefaults:\n  - /extra: ${method}\n"),
        ("method/x.yaml", "defaults: [lora, _self_]\nname: x\n"),
        ("method/x.yaml", "# @package _global_\nmethod: {name: x, rates: {middle: 1.0}}\nseed: 7\n"),
    ],
)
def test_files_that_reach_beyond_their_place_are_left_to_hydra(monkeypatch, tmp_path, name, text):
    project = with_file(tmp_path, name, text)
    for choice in ("lora", "apt"):
        (project / "conf" / "extra").mkdir(exist_ok=True)
        (project / "conf" / "extra" / f"{choice}.yaml").write_text(f"of: {choice}\n")
    methods = "lora,x" if name == "method/x.yaml" else "lora,apt"
    composed, runs = compositions(monkeypatch, [f"method={methods}", "seed=0,1"], project)
    assert (composed, runs) == (3, 4)


FAMILIES = {
    "method=paper": PAPER,
    "method=all": tuple(name for name, each in METHODS.items() if APART not in each.families),
    "method=paper,question_only": (*PAPER, "question_only"),
    "method=question_only,paper,apt": ("question_only", *PAPER),
    "method=choice(control,lora)": (*(name for name, each in METHODS.items() if each.is_control), "lora"),
}


@pytest.mark.parametrize("argument", FAMILIES)
def test_a_family_stands_for_its_methods(argument):
    jobs = [sorted(job) for job in grid.expand(ROOT, [argument, "seed=3"]).jobs]
    assert jobs == [[f"method={name}", "seed=3"] for name in FAMILIES[argument]]
    of_sweep = grid.expand(ROOT, ["+sweep=mini", argument, "backbone=vilt_mini", "task=vqa", "seed=3"]).jobs
    assert [next(each for each in job if each.startswith("method=")) for job in of_sweep] == [job[0] for job in jobs]


def test_a_sweep_of_the_papers_methods_is_what_hydra_makes_of_their_names():
    theirs = BasicSweeper.split_arguments(
        OverridesParser.create().parse_overrides([f"method={','.join(PAPER)}", "seed=0,1"]), None
    )[0]
    assert sorted(grid.expand(ROOT, ["method=paper", "seed=0,1"]).jobs) == sorted(map(list, theirs))


def test_what_is_given_takes_the_place_of_what_a_sweep_varies():
    jobs = grid.expand(ROOT, ["+sweep=mini_vqa", "seed=7", "method=lora,apt"]).jobs
    assert sorted(map(sorted, jobs)) == [
        ["+sweep=mini_vqa", "method=apt", "seed=7"],
        ["+sweep=mini_vqa", "method=lora", "seed=7"],
    ]


def test_what_is_given_is_set_in_the_backbone_and_task_that_a_sweep_chooses():
    jobs = grid.expand(ROOT, ["+sweep=clip_rates", "method=zero_shot", "rates.zero_shot=0.5", "task.shots=4"]).jobs
    found = {(each["rates"]["zero_shot"], each["task"]["shots"]) for each in configurations(ROOT, jobs)}
    assert found == {(0.5, 4)}


def test_the_launcher_is_chosen_and_set():
    assert grid.expand(ROOT, ["seed=0,1"]).launcher == {"name": "local", "parallel": None}
    launcher = grid.expand(ROOT, ["seed=0", "hydra/launcher=slurm", "hydra.launcher.partition=gpu"]).launcher
    assert (launcher["name"], launcher["partition"]) == ("slurm", "gpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+sweep=none_such"], r"sweep=none_such: no such sweep; there are"),
        (["method=lore,apt"], r"method=lore,apt: no such method; did you mean lora"),
        (["method="], r"method=: no such method; there are adapter, "),
        (["metod=lora"], r"metod=lora: the configuration has no metod; did you mean method\?"),
        (["metod=lora,apt"], r"metod=lora: the configuration has no metod; did you mean method"),
        (["method.rnk=3,4"], r"method\.rnk=3: method has no rnk; did you mean rank"),
        (["seed=0,1", "weights=/a=b/c"], r"weights=/a=b/c: cannot be read .*; in quotes: 'weights=\"/a=b/c\"'"),
        (["seed=0,1", "+seed=3"], r"\+seed=3: seed is there already; give it without the \+"),
        (["seed=0,1", "~method.rnk"], r"~method\.rnk: method has no rnk; did you mean rank"),
        (["seed=0,1", "seed"], r"seed: is no group=choice or key=value"),
        (
            ["engine.lr=1e-3,2e-3", "engine.batchsize=4"],
            r"engine.batchsize=4: engine has no batchsize; did you mean batch_size\?",
        ),
        (["hydra/launcher=basic"], r"hydra/launcher=basic: no such hydra/launcher; there are local, slurm"),
        (["seed=[0,1"], r"seed=\[0,1"),
        (["seed=interval(0,3)"], r"seed=interval\(0,3\): between its ends lies no list of values"),
        (["engine.lr=interval(1e-4,1e-3)"], r"engine\.lr=interval.*: between its ends"),
        (["seed=glob(*)"], r"seed=glob\(\*\): no value is among these"),
        (["method=glob(x*)"], r"method=glob\(x\*\): no value is among these"),
        (["method=choice(lora,aptt)"], r"method=aptt: no such method; did you mean apt"),
        (["seed=range(0,0)"], r"seed=range\(0,0\): no value is among these"),
        (["seed=range(0,9,0)"], r"seed=range\(0,9,0\): "),
        (["seed=range(0,1000000000000)"], r"a sweep has 20,000 runs at most"),
        (["+sweep=mini,mini_vqa"], r"\+sweep=mini,mini_vqa: one sweep at a time"),
        (["hydra/launcher=local,slurm"], r"hydra/launcher=local,slurm: one sweep at a time"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        configurations(ROOT, grid.expand(ROOT, arguments).jobs)
    assert "\n" not in str(caught.value)


def test_files_of_a_group_are_matched_by_their_names():
    jobs = grid.expand(ROOT, ["method=glob(*prompt)", "seed=choice(0,1)"]).jobs
    assert sorted(jobs) == [[f"method={name}", f"seed={n}"] for name in ("deep_prompt", "shallow_prompt") for n in "01"]


HEADER = "# @package _global_\n"
BROKEN = {
    "no YAML": (HEADER + "a: [1\n", r"sweeps/x\.yaml: line 3: "),
    "a tab": (HEADER + "a:\n\tb: 1\n", r"sweeps/x\.yaml: line 3: "),
    "a key twice": (HEADER + "sweep: x\nsweep: y\n", r"sweeps/x\.yaml: .*sweep"),
    "no header": ("sweep: x\n", r"sweeps/x\.yaml: its first line must be # @package _global_"),
    "empty": ("", r"sweeps/x\.yaml: its first line must be"),
    "a byte order mark": ("\ufeff" + HEADER + "sweep: x\n", r"sweeps/x\.yaml: begins with a byte order mark"),
    "an octal number": (HEADER + "sweep: x\nseed: 010\n", r"sweeps/x\.yaml: seed: Hydra would read 10 as 8; write"),
    "a number in base 60": (
        HEADER + "sweep: x\nengine: {betas: [0.9, 1:30]}\n",
        r"sweeps/x\.yaml: engine\.betas: Hydra would read 1:30 as 90; write what you mean, or put it in quotes",
    ),
    "a list": (HEADER + "- 1\n", r"sweeps/x\.yaml: holds no settings; it lacks at least sweep: x"),
    "no name": (HEADER + "seed: 0\n", r"sweeps/x\.yaml: sweep: None must be a name"),
    "a path as its name": (HEADER + "sweep: ../../x\n", r"sweeps/x\.yaml: sweep: \.\./\.\./x must be a name"),
    "a typing error": (HEADER + "sweep: x\nsede: 0\n", r"sweeps/x\.yaml: sede is read by nothing"),
    "params that are a list": (
        HEADER + "sweep: x\nhydra: {sweeper: {params: [1]}}\n",
        r"sweeps/x\.yaml: hydra\.sweeper\.params: \[1\] must hold key: values",
    ),
    "a list of values": (
        HEADER + "sweep: x\nhydra: {sweeper: {params: {seed: [0, 1]}}}\n",
        r"sweeps/x\.yaml: hydra\.sweeper\.params\.seed: \[0, 1\] must be values as on a command line",
    ),
    "hydra that is a word": (HEADER + "sweep: x\nhydra: fast\n", r"sweeps/x\.yaml: hydra: fast must hold settings"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_of_a_sweep_is_one_line(tmp_path, text, message):
    shutil.copytree(ROOT / "conf", tmp_path / "conf", symlinks=True)
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    (tmp_path / "sweeps" / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message.replace("sweeps/", "(sweeps|conf/sweep)/")) as caught:
        configurations(tmp_path, grid.expand(tmp_path, ["+sweep=x"]).jobs)
    assert "\n" not in str(caught.value)


def test_another_folder_is_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no conf/run.yaml"):
        grid.expand(tmp_path, ["seed=0,1"])
