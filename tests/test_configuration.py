"""Every setting with every kind of wrong value: accepted with a meaning, or one line that names it, before all else."""

import json
import math
import re
from copy import deepcopy
from pathlib import Path

import pytest
from composed import composed

from vltune.assemble.factory import build_method, check_values
from vltune.engine.precision import settle
from vltune.errors import UserError
from vltune.experiment import readiness, rehearsal
from vltune.experiment.evaluate import copy_setting, of_record, whole
from vltune.experiment.rehearsal import rehearse
from vltune.settings.config import RunConfig
from vltune.settings.engine import Settings
from vltune.tasks.vqa import VQA
from vltune.values import said

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
VALUES = [None, "x", "", -1, 0, 10**30, math.nan, math.inf, -0.5, True, [], ["x"], {}, {"x": 1}, 2.5]
# Configurations that have all settings between them.
BASES = {
    "vilt_mini": [],
    "meter_mini": ["method=lora", "backbone=meter_mini", "task=nlvr2"],
    "coco": ["method=deep_prompt", "task=retrieval", "dataset=coco"],
    "wandb": ["method=adapter", "logger=wandb", "task=snli_ve"],
    "match": ["method=scaled_pa", "+match=params"],
    "shallow_prompt": ["method=shallow_prompt"],
    "pretrain": ["mode=pretrain"],
    "meter": ["mode=cost", "backbone=meter", "dataset=shapes"],
}
# Where another setting than the changed one is told: what follows from it, or what it does not go with.
TOLD_AS = {
    "backbone.image_towers": "backbone.image_tower=",
    "task.reader": "task.reader",
    "match.budget": "+match=params",
    "dataset": "dataset.",
}


def paths(tree, above=()):
    for key, value in tree.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


def changed(config, path, value):
    config = deepcopy(config)
    at = config
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = deepcopy(value)
    return config


@pytest.fixture(scope="module")
def settings():
    """{its path: the name of a base that has it, and that base's configuration}"""
    found = {}
    for base, overrides in BASES.items():
        config = composed(*overrides)
        for path in paths(config):
            if path[0] != "rates":  # what a learning rate may follow from
                found.setdefault(path, (base, config))
    return found


@pytest.fixture
def unrehearsed(monkeypatch):
    """Values alone, which take a millisecond."""
    monkeypatch.setattr(readiness, "rehearse", lambda config, overrides: None)


def test_every_setting_with_every_value_is_accepted_or_told_by_its_name(settings, unrehearsed):
    assert len(settings) > 180
    accepted = set()
    for path, (base, config) in settings.items():
        name = ".".join(path)
        for value in VALUES:
            given = changed(config, path, value)
            try:
                check_values(given)
                readiness.built(settle(given), [*BASES[base], said(name, value)])
            except UserError as error:
                line = str(error)
                assert line.isprintable(), line
                assert name in line or TOLD_AS.get(name, "?") in line, f"{said(name, value)}: {line}"
            else:
                accepted.add((name, repr(value)))
    # A few that must not be refused, and of the others no more than there are.
    assert {("engine.max_steps", "None"), ("engine.workers", "0"), ("weights", "None"), ("weights", "'x'")} <= accepted
    assert {("dataset.val", "[]"), ("method.dropout", "0"), ("engine.evaluate", "[]")} <= accepted
    free = ("backbone.pixels.", "backbone.image_towers.")  # of towers that are not chosen
    assert len([each for each in accepted if not each[0].startswith(free)]) < 240


WRONG = [
    ("method.dropout=a", "method.dropout=a: must be a number from 0 to below 1"),
    ("method.dropout=1", "method.dropout=1: must be a number from 0 to below 1"),
    ("method.prompt_std=null", "method.prompt_std=null: must be a number of at least 0"),
    ("method.roles=query", "method.roles=query: must be a list"),
    ("backbone.width=0", "backbone.width=0: must be a whole number from 1 to 1000000"),
    ("backbone.heads=5", "backbone.heads=5: must divide backbone.width=64"),
    ("backbone.layers=1000000", "backbone.layers=1000000: must be a whole number from 1 to 1000"),
    ("backbone.max_image_len=0", "backbone.max_image_len=0: must be -1 or a whole number from 1"),
    ("backbone.transform.mean=[]", "backbone.transform.mean=[]: must be a list of 3, each a number"),
    ("backbone.protocol.image=64", "backbone.protocol.image=64: must be a list of 2, each a whole number from 1"),
    ("backbone.protocol.image=[64,64,3]", "backbone.protocol.image=[64,64,3]: must be a list of 2"),
    ("backbone.protocol.text_len=2.5", "backbone.protocol.text_len=2.5: must be a whole number from 1"),
    ("task.start_bias=x", "task.start_bias=x: must be a number"),
    ("dataset.images=foo", 'dataset.images=foo: must be one of "true", shuffled'),
    ("dataset.images=true", 'dataset.images=true: must be one of "true", shuffled'),
    ("dataset.train=[]", "dataset.train=[]: there is nothing to train on"),
    ("dataset.val=null", "dataset.val=null: must be a list of words, none twice, or [] for none"),
    ("dataset.randaugment=5", "dataset.randaugment=5: must be a word, or null"),
    ("dataset.generate=null", "dataset.generate=null: must be {layout: ..."),
    ("dataset.generate.images={train: 3}", "dataset.generate.images.val: is missing"),
    ("dataset.name=../x", "dataset.name=../x: must be a name of letters"),
    ("engine.betas=5", "engine.betas=5: must be a list of 2, each a number from 0 to below 1"),
    ("engine.evaluate=val", "engine.evaluate=val: must be a list of val, test, or [] for none"),
    ("engine.clip=0", "engine.clip=0: must be a number above 0, or null for no clipping"),
    ("engine.precision=16-true", "engine.precision=16-true: must be one of auto, 32-true, bf16-mixed"),
    ("engine.devices=3 engine.batch_size=8", "engine.batch_size=8 cannot be shared evenly by 3 devices"),
    ("seed=1099511627776", "seed=1099511627776: must be a whole number from 0 to 4294967295"),
    ("busy=maybe", "busy=maybe: must be one of wait, leave"),
    ("sweep=a/b", None),  # Hydra has a group of that name
    ("engine.select=best dataset.val=[]", "engine.select=best: there is no validation split"),
    ("~method.rank", "method.rank: is missing; method needs it"),
    ("~engine.epochs", "engine.epochs: is missing; a run needs it"),
    ("~dataset.data_dir", "dataset.data_dir: is missing; a run needs it"),
    ("~seed", "seed: is missing; a run needs it"),
    ("~logger", "logger: is missing; a run needs it"),
    (
        "+method.rnk=3",
        "method.rnk: there is no such setting; did you mean rank? there are prompts, rank",
    ),
    ("+dataset.imags=x", "dataset.imags: there is no such setting; did you mean images?"),
    ("+backbone.dropot=0", "backbone.dropot: there is no such setting; did you mean dropout?"),
    ("+task.start_bais=0", "task.start_bais: there is no such setting; did you mean start_bias?"),
    ("++engine.max_stepz=3", "engine.max_stepz: there is no such setting; did you mean max_steps?"),
    ("+logger.mode=x", "logger.mode: there is no such setting"),
    ("+sed=3", "+sed=3: there is no such setting; did you mean seed?"),
    ("+method@referense=lora", "+method@referense=lora: there is no such setting"),
    ("method._target_=os.system", "method._target_=os.system: a configuration may only name what is in vltune"),
    ("task.reader=vltune.values.SHOWN", "task.reader=vltune.values.SHOWN: no data set; there are"),
    ("from=x", "from=x: only mode=eval reads a record"),
    ("task=pretraining", "task=pretraining: reads no data (task.reader)"),
    ("mode=pretrain task=vqa", "task=vqa: mode=pretrain trains on generated pairs"),
    ("mode=pretrain method=lora", "method=lora: mode=pretrain trains the whole backbone"),
    (
        "mode=pretrain dataset=coco",
        "dataset=coco: mode=pretrain draws its own pictures and texts, of shapes; leave it out",
    ),
    (
        "mode=pretrain dataset.train_fraction=0.1",
        "dataset.train_fraction=0.1: mode=pretrain draws its own pictures and",
    ),
    ("mode=pretrain task.caption_tokens=999", "task.caption_tokens=999: backbone.max_text_len="),
    ("mode=pretrain engine.devices=2", "mode=pretrain draws each batch as a whole, on one device; leave them out"),
    ("mode=pretrain engine.group_by_length=true", "engine.group_by_length=true: mode=pretrain draws each batch as a"),
    ("mode=pretrain engine.micro_batch_size=8", "mode=pretrain draws each batch as a whole, on one device"),
    ("mode=pretrain engine.eval_examples=5", "engine.eval_examples=5: mode=pretrain scores batches as a whole"),
    (
        "method=apt method.map=none method.rank=3",
        "method.rank=3: method.map=none decides in its place; add method.map=low_rank",
    ),
    (
        "method=coop method.init_std=1 method.words=a",
        "method.init_std=1: method.words=a decides in its place; add method.wor",
    ),
    ("engine.eps=0", "engine.eps=0: must be a number above 0"),
    ("method=das method.search_lr=-1", "method.search_lr=-1: must be a number above 0"),
    ("engine.epochs=3", "engine.epochs=3: engine.max_steps=1000 decides in its place; add engine.max_steps=null, or"),
    ("engine.head_lr_multiplier=3", "engine.head_lr_multiplier=3: engine.head_lr=0.003 decides in its place; add"),
    (
        "dataset.train_fraction_seed=3",
        "dataset.train_fraction_seed=3: dataset.train_fraction=1 decides in its place; add dataset.train_fraction=0.1, or",
    ),
    ("engine.val_every=3", "engine.val_every=3: engine.select=last decides in its place; add engine.select=best"),
    *(
        (f"backbone=clip_mini task=classification {setting}", f"{setting}: task.classifier=text decides in its place")
        for setting in ("task.alpha=3", "task.beta=1", "task.cache_trained=true")
    ),
    (
        "backbone=clip_mini task=classification dataset=shapes task.protocol=full task.shots=4",
        "task.shots=4: task.protocol=full decides in its place; add task.protocol=few_shot, or leave it out",
    ),
    ("task=matching engine.micro_batch_size=8", "task=matching tells each pair from all others of its batch"),
    ("task=matching engine.devices=2", "engine.micro_batch_size, engine.devices and engine.nodes: task=matching tells"),
    ("task=subject task.seeds=[]", "task.seeds=[]: must be a list of different whole numbers from 0 on, one at least"),
    ("task=subject task.seeds=[0,0]", "task.seeds=[0,0]: must be a list of different whole numbers from 0 on"),
    ("task=subject task.seeds=[2147483648]", "task.seeds=[2147483648]: must be a list of different whole numbers"),
    ("task=subject task.sampler_steps=0", "task.sampler_steps=0: must be a whole number of at least 1"),
    ("task=subject task.sampler_steps=-3", "task.sampler_steps=-3: must be a whole number of at least 1"),
    ("task=subject task.class_pictures=-1", "task.class_pictures=-1: must be a whole number of at least 0"),
    ("task=subject task.prior_weight=-1", "task.prior_weight=-1: must be a number of at least 0"),
    ("engine.precision=16-mixed", "engine.precision=16-mixed: must be one of auto, 32-true, bf16-mixed"),
    ("mode=cost logger=wandb", "logger=wandb: mode=cost logs nothing"),
    ("logger=wandb logger.mode=of", "logger.mode=of: "),
    ("dataset.generate.layout=nlvr2 +dataset.generate.questions_per_image=2", "nlvr2 has no such setting"),
]


@pytest.mark.parametrize(("overrides", "message"), [case for case in WRONG if case[1]])
def test_a_wrong_value_is_one_line(overrides, message, unrehearsed):
    with pytest.raises(UserError) as error:
        ready(*overrides.replace(", ", ",").split(" ") if "{" not in overrides else [overrides])
    assert message in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "overrides",
    [
        "backbone=clip_mini task=classification method=tip_adapter task.alpha=3 task.beta=1 task.cache_trained=true",
        "backbone=clip_mini task=classification task.protocol=base_to_new task.shots=4",
        "backbone=clip task=classification task.protocol=full task.shots=4",  # the recipe's steps follow from it
    ],
)
def test_what_decides_something_is_let_pass(overrides, unrehearsed):
    ready(*overrides.split())


TEMPLATE = "dataset.template='such {}'"


@pytest.mark.parametrize(
    ("method", "setting", "by", "other"),
    [
        ("linear_probe", TEMPLATE, "task.classifier=linear", "linear_from_text"),
        ("linear_probe", "task.template=ensemble", "task.classifier=linear", "linear_from_text"),
        ("coop", TEMPLATE, "task.template=name", "own"),
    ],
)
def test_a_template_that_nothing_reads_is_refused(method, setting, by, other, unrehearsed):
    typed = "backbone=clip_mini", "task=classification", "dataset=shapes", f"method={method}", setting
    fix = f"{by.partition('=')[0]}={other}"
    told = f"{setting}: {by} decides in its place; add {fix}, or leave it out"
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
        ready(*typed)
    ready(*typed, fix, *(["task.template=own"] if setting == TEMPLATE else []))


def ready(*overrides):
    config = composed(*overrides)
    check_values(config)
    return readiness.built(settle(config), overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone.token_types=1"], "backbone.token_types=1: no model comes of that (index 1 is out of bounds"),
        (["backbone.transform.multiple=20"], "backbone.transform.multiple=20: no model comes of that"),
        (
            ["backbone.transform.multiple=8", "backbone.transform.longer=96"],
            "no model comes of that (images have sides of a multiple of 8 pixels, and patches 16)",
        ),
        (["backbone.transform.multiple=32"], None),
        (["backbone.protocol.image=[60,64]"], "backbone.protocol.image=[60,64]: no model comes of that"),
        (["mode=cost", "backbone.protocol.image=[64,60]"], "backbone.protocol.image=[64,60]: no model comes of that"),
        (
            ["mode=cost", "backbone.protocol.text_len=33"],
            "backbone.protocol={text_len: 33, image: [64,64]}: a text of 33",
        ),
        (["backbone=meter_mini", "backbone.protocol.image=[64,128]"], "[64,128]: no model comes of that"),
        (["backbone=meter_mini", "backbone.transform.size=128"], "backbone.transform.size=128: no model comes of that"),
        (["backbone=meter_mini", "backbone.max_text_len=40"], None),  # its positions follow
        (
            ["backbone=meter_mini", "backbone.text_tower.positions=8"],
            "backbone.max_text_len=32: a text of 32 tokens exc",
        ),
        (
            ["backbone=meter_mini", "backbone.image_towers.clip.kind=swan"],
            ".kind=swan: no model comes of that ('swan')",
        ),
        (
            ["backbone=sd_mini", "task=subject", "+task.judges.dino.foldr=x"],
            "task.judges.dino.foldr: there is no such setting; did you mean folder?",
        ),
        (["backbone=sd_mini", "task=subject", "task.judges.dino={}"], "task.judges.dino.folder: is missing"),
        (["mode=cost", "backbone=clip", "backbone.model=b32", "task=matching", "method=coop"], None),  # texts are cut
        (
            ["mode=cost", "backbone=clip", "task=matching", "method=coop", "method.prompts=75"],
            "152 tokens, 75 of them prompts, exceeds the 77 positions",
        ),
        (["backbone.activation=reluu"], "backbone.activation=reluu: no model comes of that ('reluu')"),
        (["method.prompts=1000000000"], "method.prompts=1000000000: no model comes of that (1,024 GB of parameters"),
        (["method.rank=65"], "method.rank=65: must be a whole number between 1 and the width 64"),
        (["method.roles=[qery]"], "there is no role 'qery'"),
        (["method=scaled_pa", "method.scale=x"], "method.scale=x: must be a number"),
        (
            ["+match=params", "method=lora", "match.reference.rank=65"],
            "match.reference.rank=65: must be a whole number",
        ),
    ],
)
def test_settings_that_do_not_fit_each_other_are_told_before_anything_starts(overrides, message):
    if message is None:
        ready(*overrides)
        return
    with pytest.raises(UserError) as error:
        ready(*overrides)
    assert message in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("task", ["vqa", "nlvr2", "retrieval", "snli_ve"])
@pytest.mark.parametrize("backbone", ["vilt_mini", "meter_mini"])
def test_what_fits_is_let_pass(backbone, task):
    chosen = [f"backbone={backbone}", f"task={task}", "method=lora", "method.rank=3"]
    assert ready(*chosen).method["rank"] == 3


def test_real_backbones_and_pretraining_are_rehearsed_too():
    ready("backbone=vilt", "task=vqa", "method.prompts=10")
    ready("mode=pretrain", "backbone.layers=2")


def test_a_task_that_reads_more_than_a_rehearsal_shows_is_told_what_it_asks_for(monkeypatch):
    monkeypatch.setattr(VQA, "forward", lambda self, backbone, batch: batch["labelled"])
    with pytest.raises(
        UserError, match=r"the forward pass asks for 'labelled', of a batch of text_ids, text_mask, image"
    ):
        rehearse(RunConfig.of(composed()), ["task.start_bias=0"])


def test_a_mistake_of_the_code_is_not_blamed_on_who_typed_nothing(monkeypatch):
    monkeypatch.setattr(rehearsal, "build_model", lambda *arguments, **more: 1 / 0)
    rehearse(RunConfig.of(composed()), ["method=apt", "seed=1"])
    with pytest.raises(UserError, match=r"method.rank=3: no model comes of that \(division by zero\)"):
        rehearse(RunConfig.of(composed()), ["method=apt", "method.rank=3"])


def test_a_sweep_is_looked_at_as_a_whole(monkeypatch):
    looked = []
    monkeypatch.setattr(readiness, "rehearse", lambda config, overrides: looked.append(overrides))
    jobs = [[f"seed={seed}", f"method.rank={rank}"] for seed in (0, 1) for rank in (2, 3)]
    configs = [composed(*job) for job in jobs]
    readiness.check_jobs(jobs, configs)
    assert looked == jobs[:2]  # another seed is built of the same


def test_the_folder_of_results_is_left_as_it_was(tmp_path):
    readiness.check_writable("results_dir", tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    readiness.check_writable("results_dir", tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())
    with pytest.raises(UserError, match=r"results_dir=/proc/x/y: cannot be written \(.*\); name another folder"):
        readiness.check_writable("results_dir", Path("/proc/x/y"))


def test_home_is_filled_in_wherever_a_path_is_typed(monkeypatch, unrehearsed):
    monkeypatch.setenv("HOME", "/home/someone")
    names = ("results_dir", "weights", "dataset.data_dir", "dataset.subfolder", "engine.features_dir")
    names += ("backbone.tokenizer.vocabulary", "+backbone.tower_weights.text")
    config = composed(*(f'{name}="~/x"' for name in names))
    check_values(config)
    readiness.built(settle(config), [])
    assert json.dumps(config).count('"/home/someone/x"') == len(names) - 1
    assert str(Settings.of(config["engine"]).features_dir) == "/home/someone/x"


@pytest.mark.parametrize(("kind", "options"), [("shira", "{r: 4}"), ("waveft", "{n_frequency: 20}"), ("frod", "null")])
def test_what_torch_computes_with_numbers_alone_is_let_pass(kind, options):
    typed = ["method=peft", f"method.type={kind}", f"method.options={options}"]
    rehearse(RunConfig.of(composed(*typed)), typed)


@pytest.mark.parametrize(("name", "told"), [("full", "leave it out"), ("mam", r"method\.methods\.NAME\.sites_in says")])
def test_where_a_method_acts_is_refused_of_one_that_acts_nowhere_itself(name, told):
    with pytest.raises(UserError, match=rf"^method\.sites_in: {name} itself acts at no sites; {told}"):
        build_method(composed(f"method={name}", "+method.sites_in=text")["method"])


def test_how_a_command_runs_may_be_said_beside_a_record():
    typed = ["mode=eval", "from=r.json", "busy=wait", "sweep=mine", "engine.workers=0"]
    record, chosen = {"config": composed("method=lora")}, composed("busy=wait", "engine.workers=0")
    scored = of_record(record, Path("r.json"), chosen, typed)
    assert (scored.method["name"], scored.engine.workers) == ("lora", 0)
    with pytest.raises(UserError, match=r"^seed=1: the record says that; leave it out"):
        of_record(record, Path("r.json"), chosen, [*typed, "seed=1"])


def test_a_judge_that_the_record_did_not_ask_may_be_asked():
    there, typed = {"judges": {"dino": None}}, {"judges": {"dino": {"folder": "x"}}}
    copy_setting(["judges", "dino", "folder"], typed, there)
    assert there == typed
    copy_setting(["judges", "dino", "folder"], {"judges": {"dino": None}}, there)
    assert there == {"judges": {"dino": {}}}


def test_every_committed_record_holds_a_configuration_that_can_be_run():
    config, files = composed(), list((ROOT / "results").glob("**/records/**/*.json"))
    assert len(files) > 300
    for file in files:
        whole(json.loads(file.read_text(encoding="utf-8"))["config"], config, file)
