"""Arguments of run.py: whatever they are, a configuration comes of them or one line that names the argument."""

import json
import os
import re
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest
from composed import composed
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vltune.assemble.factory import check_values
from vltune.command_line import check_choices, check_single, of_sweep, one_line
from vltune.engine.precision import settle
from vltune.errors import UserError
from vltune.experiment import readiness
from vltune.overrides import explained, leaves, quoted
from vltune.runs import identity

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"


def configuration(*arguments):
    """What `python run.py` makes of them before any data is opened, as it does."""
    with explained(ROOT, arguments):
        check_choices(CONF, arguments)
        config = composed(*arguments)
    check_values(config)
    return readiness.built(settle(config), arguments).plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["method.rnk=3"],
            "method.rnk=3: method has no rnk; did you mean rank? there are name, prompts, rank",
        ),
        (
            ["method.rnk=3", "method=lora"],
            "method.rnk=3: method has no rnk; did you mean rank? there are name, rank, dropout",
        ),
        (["metod=lora"], "metod=lora: the configuration has no metod; did you mean method? there are "),
        (["metod.rank=3"], "metod.rank=3: the configuration has no metod; did you mean method? there are "),
        (["rank=3"], "rank=3: the configuration has no rank; did you mean method.rank? there are "),
        (["lr=0.1"], "lr=0.1: the configuration has no lr; did you mean engine.lr? there are "),
        (["engine.max_stepz=3"], "engine.max_stepz=3: engine has no max_stepz; did you mean max_steps? there are lr, "),
        (
            ["backbone.transform.sorter=3"],
            "backbone.transform has no sorter; did you mean shorter? there are shorter, longer",
        ),
        (["~method.rnk"], "~method.rnk: method has no rnk; did you mean rank? there are name"),
        (["method.rank.x=3"], "method.rank.x=3: method.rank is ${backbone.sizes.rank}, which holds no x"),
        (["+method.rank=3"], "+method.rank=3: method.rank is there already; give it without the +"),
        (
            ["hydra.launcher.paralel=3"],
            "hydra.launcher has no paralel; did you mean parallel? there are name, parallel",
        ),
        (["match=params"], "match=params: a run has no match unless it is added; give it with a +"),
        (["method@there=apt"], "method@there=apt: Could not override 'method@there'. Did you mean"),
        (
            ["method@match.reference=atp", "+match=macs"],
            "method@match.reference=atp: no such method; did you mean apt?",
        ),
        (
            ["method=lora,apt"],
            "method=lora,apt: several values, which need -m; one value in quotes: 'method=\"lora,apt\"'",
        ),
        (["seed=0,1"], "seed=0,1: several values, which need -m"),
        (["seed=range(3)"], "seed=range(3): several values, which need -m"),
        (["seed='glob(*)'"], "seed=glob(*): must be a whole number"),
        (["weights=/tmp/a=b/m.ckpt"], "in quotes: 'weights=\"/tmp/a=b/m.ckpt\"'"),
        (["weights=/tmp/é.ckpt"], "in quotes: 'weights=\"/tmp/é.ckpt\"'"),
        (["dataset.data_dir=~/data"], "in quotes: 'dataset.data_dir=\"~/data\"'"),
        (["weights=/tmp/a(1).ckpt"], "in quotes: 'weights=\"/tmp/a(1).ckpt\"'"),
        (["weights=/tmp/it's.ckpt"], "in quotes: 'weights=\"/tmp/it'\"'\"'s.ckpt\"'"),
        (['weights=/tmp/"x".ckpt'], "in quotes: 'weights='\"'\"'/tmp/\"x\".ckpt'\"'\"''"),
        (["weights=/tmp/a,b.ckpt"], "several values, which need -m; one value in quotes: 'weights=\"/tmp/a,b.ckpt\"'"),
        (["engine.evaluate=[val,test"], "engine.evaluate=[val,test: cannot be read (no viable alternative"),
        (["method..rank=3"], "method..rank=3: cannot be read ("),
        (["=3"], "=3: "),
        ([""], "'': is no group=choice or key=value"),
        (["apt"], "apt: is no group=choice or key=value"),
        (
            ["weights=${nothing}"],
            "weights=${nothing}: the configuration has no nothing; it has dataset, task, backbone",
        ),
        (["weights=${seed.x}"], "weights=${seed.x}: ConfigTypeError raised while resolving interpolation"),
        (["weights=${weights}"], "weights=${weights}: Recursive interpolation detected"),
        (["weights=${"], "weights=${: cannot be read ("),
        (["engine={a: 1}"], "engine={a: 1}: no such engine; there are default"),
        (["hydra/job_logging=nothing"], "hydra/job_logging=nothing: "),
    ],
)
def test_what_is_wrong_with_an_argument_is_one_line(arguments, message):
    with pytest.raises(UserError) as error:
        configuration(*arguments)
    assert message in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("dataset.prompts=a.txt", "; where the record's dataset has it: +dataset.prompts=a.txt"),
        ("task.judges={}", "; where the record's task has it: +task.judges={}"),
        ("backbone.tower_weights.clip=a", "; where the record's backbone has it: +backbone.tower_weights.clip=a"),
        ("method.rnk=3", None),
        ("weights.x=3", None),
        ("~dataset.prompts", None),
    ],
)
def test_what_only_a_record_has_is_added(argument, hint):
    with pytest.raises(UserError) as error:
        configuration("mode=eval", argument)
    assert str(error.value).endswith(hint) if hint else "the record's" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["hydra/launcher=slurm"], "hydra/launcher=slurm: without -m one run starts here, and no launcher; add -m, "),
        (["seed=0", "+hydra.launcher.partition=gpu"], "vltune sweep submit; else leave it out"),
        (["hydra/launcher=slurm", "hydra.mode=RUN"], None),
        (["hydra.launcher.parallel=2", "--cfg", "hydra"], None),
        (["hydra.run.dir=.", "seed=0"], None),
    ],
)
def test_one_run_is_not_told_of_a_launcher(arguments, told):
    with pytest.raises(UserError, match=re.escape(told)) if told else nullcontext():
        check_single(arguments)


def test_an_error_that_no_argument_is_at_fault_for_is_left_as_it_is():
    with pytest.raises(ZeroDivisionError), explained(ROOT, ["method=lora", "-m"]):
        raise ZeroDivisionError


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=20))
def test_what_is_shown_in_quotes_is_the_value_once_a_shell_and_hydra_have_read_it(value):
    if (typed := quoted(f"weights={value}")) is None:
        assert not value.isprintable() or value.startswith(("[", "{")) or "${" in value or "\\" in value
        return
    (word,) = shlex.split(typed)
    assert OverridesParser.create().parse_override(word).value().replace("\\${", "${") == value


# What follows makes arguments up.  A long run: VLTUNE_FUZZ=20000 pytest tests/test_overrides.py
EXAMPLES = int(os.environ.get("VLTUNE_FUZZ", 120))
TREE = configuration() | {"match": {"by": "params", "budget": None, "reference": {"prompts": 16}}}
KEYS = [*leaves(TREE), "hydra", "hydra.run.dir", "hydra.launcher.parallel", "hydra.sweeper.params"]
GROUPS = [folder.name for folder in sorted(CONF.iterdir()) if folder.is_dir()]
CHOICES = sorted({file.stem for file in CONF.glob("*/*.yaml")})
ODD = """null true FALSE inf -inf nan 0 1 2 -1 0.5 1e400 0x1f 1_000 '' "" ${seed} ${nothing} ${backbone.width} ${.x} ${..}
${ ${oc.env:HOME} ${oc.env:NOT_SET} ${oc.select:nothing} ${oc.decode:x} choice(1,2) range(3) interval(0,1) glob(*)
shuffle(1,2) sort(3,1) int(1.5) str(1) bool(no) json_str({a:1}) extend_list(1) a,b 1,2 [val,test] [test] [] [[]] {} {a:1}
{a:{b:[1,2]}} [1,2.5,null] {val:3} ~/x /proc/x /dev/null x\\,y 'it\\'s' a=b é""".split()  # noqa: SIM905
NUMBERS = st.one_of(st.integers(-(10**20), 10**20).map(str), st.floats().map(str))
TEXT = st.text(st.sampled_from("abz019._-+*/\\ ,:=~@$%#!?|&;<>^`'\"()[]{}\n\té漢\u200b\ud800"), max_size=12)
VALUES = st.one_of(
    *(NUMBERS, st.sampled_from(ODD), TEXT, st.sampled_from(CHOICES), TEXT.map(lambda text: f'"{text}"')),
    st.lists(st.one_of(NUMBERS, st.sampled_from(ODD)), max_size=3).map(lambda values: f"[{','.join(values)}]"),
)


def at(path):
    found = TREE
    for key in path.split("."):
        found = found[key]
    return found


@st.composite
def plausible(draw):
    """A choice that there is, or a key that there is with a value of its type."""
    if draw(st.integers(0, 3)) == 0:
        group = draw(st.sampled_from(["method", "backbone", "task", "dataset", "logger", "engine", "mode"]))
        return f"{group}={draw(st.sampled_from(sorted(file.stem for file in (CONF / group).glob('*.yaml'))))}"
    key = draw(st.sampled_from([key for key in leaves(TREE) if not isinstance(at(key), dict)]))
    value = {
        bool: st.sampled_from(["true", "false"]),
        int: st.integers(0, 70),
        float: st.sampled_from([0, 0.1, 0.5, 1, 1.0, 2, 1e-3, 1e-9, 0.999]),
        list: st.sampled_from(["[]", "[val]", "[attention_output,query]", "[0.1,0.2]", "[64,32]", "[0.5,0.5,0.5]"]),
        str: st.sampled_from([str(at(key)), "x", "relu", "null", "/tmp", '"a b"']),
    }.get(type(at(key)), st.sampled_from(["null", "1", "0.5", "x", "5"]))
    return f"{draw(st.sampled_from(['', '', '', '++']))}{key}={draw(value)}"


@st.composite
def misspelt(draw):
    key = draw(st.sampled_from([*KEYS, *GROUPS, "method@match.reference", "hydra/launcher"]))
    place = draw(st.integers(0, len(key) - 1))
    before, letter, after = key[:place], key[place], key[place + 1 :]
    return draw(
        st.sampled_from([before + after, f"{before}{letter}{letter}{after}", f"{before}{letter.upper()}{after}"])
    )


@st.composite
def odd(draw):
    """Any key with any value in any syntax, and something else in between."""
    key = draw(st.one_of(st.sampled_from(KEYS), st.sampled_from(GROUPS), misspelt(), TEXT))
    key += draw(st.sampled_from([*([""] * 9), ".x", ".0", "..", "@_global_", "@x", ":x", ".rank", "[0]"]))
    mark = draw(st.sampled_from([*([""] * 5), "+", "++", "~", "+~"]))
    argument = f"{mark}{key}{draw(st.sampled_from([*['='] * 6, '', ' = ', '==']))}{draw(VALUES)}"
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(argument)))
        argument = argument[:place] + draw(TEXT) + argument[place:]
    return argument


ARGUMENTS = st.lists(st.one_of(plausible(), plausible(), odd()), min_size=1, max_size=3)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="VLTUNE_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(ARGUMENTS.filter(lambda arguments: not any(each.startswith("-") for each in arguments)))  # an option of Hydra's
def test_any_arguments_make_a_configuration_or_one_line(arguments):
    try:
        config = configuration(*arguments)
    except UserError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        assert len(one_line(error)) > 10
        assert one_line(error).isprintable()
        return
    # A record holds it, and with it all that its hash follows from.
    recorded = json.loads(json.dumps(config, allow_nan=False))
    assert identity.text(identity.settings(recorded)) == identity.text(identity.settings(config))


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        (["-m", "seed=0,1"], ["seed=0,1"]),
        (["--multirun", "seed=0,1"], ["seed=0,1"]),
        (["hydra.mode=MULTIRUN", "seed=0,1"], ["seed=0,1"]),
        (["+sweep=mini"], ["+sweep=mini"]),
        (["-m", "seed=0,1", "--help"], None),
        (["+sweep=mini", "seed=0", "hydra.mode=RUN"], None),
        (["seed=0"], None),
    ],
)
def test_a_sweep_is_told_by_its_arguments(arguments, overrides):
    assert of_sweep(arguments) == overrides
