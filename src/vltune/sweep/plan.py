"""What a sweep's runs are: where their records lie, and what they need that is not there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from vltune.assemble.factory import check_values, is_whole
from vltune.atomic import replacing
from vltune.canonical import text
from vltune.command_line import ALONE
from vltune.data.walk import folders_below
from vltune.errors import UserError
from vltune.runs import identity as identities
from vltune.settings.check import checked, declared
from vltune.settings.run import RunSettings
from vltune.sweep import verdicts
from vltune.sweep.compose import configurations, parts_of
from vltune.sweep.grid import expand
from vltune.sweep.hydra_files import reading
from vltune.sweep.places import Places

UNNAMED = "unnamed"
"""The name of runs that no file of sweeps/ describes."""
KEPT_IN = Path("outputs", "plans")
PASSING = ("oc.env", "now:")  # in an interpolation: what it reads may be another the next time
# Settings of launchers that count something.
COUNTS = {"parallel", "timeout_min", "signal_delay_s", "gpus_per_task", "cpus_per_task", "mem_gb"}


@dataclass(frozen=True)
class Run:
    """label: what tells it from the other runs.  places: where its record may lie, below the folder of results; of one that
    cannot start, where one lies that was made elsewhere.  missing: why it cannot start, or None."""

    overrides: list[str]
    label: str
    backbone: str
    task: str
    dataset: str
    method: str
    seed: int
    devices: int
    nodes: int
    force: bool
    places: list[str]
    missing: str | None = None
    threads: int | None = None

    @property
    def command(self) -> str:
        """As a person types it."""
        return shlex.join(["python", "run.py", *self.overrides, ALONE])


@dataclass(frozen=True)
class Plan:
    """arguments: as `python run.py -m` takes them.  root: the folder of results, one for all runs.  launcher: the settings
    of the chosen one.  jobs: the overrides of each run.  configs: resolved, of each.  alike: how many runs were others in
    other words, and are left out."""

    project: Path
    name: str
    arguments: list[str]
    root: Path
    launcher: dict
    jobs: list[list[str]]
    configs: list[dict] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    alike: int = 0

    @property
    def folder(self) -> Path:
        """Of what was submitted."""
        return self.root / "sweeps" / self.name

    def typed(self, command: str) -> str:
        """`vltune sweep COMMAND` of this sweep, as a person types it: with what makes it this one."""
        where = [] if self.project == Path() else ["--project", str(self.project)]
        overrides = (each for each in self.arguments if not each.startswith("+sweep="))
        return shlex.join(["vltune", "sweep", command, self.name, *overrides, *where])


def plan(project: Path, arguments: Sequence[str]) -> Plan:
    """What `python run.py -m ARGUMENTS` would run.  What is missing is told by run; UserError where arguments are wrong.

    Built once: kept as long as configurations, data, weights, code, packages and machine are the same."""
    return kept(project, arguments) or built(project, arguments)


def built(project: Path, arguments: Sequence[str]) -> Plan:
    with verdicts.checks(KEPT_IN) as check, reading(project):
        grid = expand(project, arguments)
        configs = configurations(project, grid.jobs)
        first = of_each_sort(configs)
        check_launcher(grid.launcher)
        if len(roots := {config["results_dir"] for config in configs}) > 1:
            raise UserError(f"results_dir={','.join(sorted(roots))}: a sweep has one folder of results")
        different = sorted({*first})
        good = check([grid.jobs[number] for number in different], [configs[number] for number in different])
    sorts = dict(zip(different, good, strict=True))
    configs = [sorts[of] | {"seed": config["seed"]} for of, config in zip(first, configs, strict=True)]
    name = configs[0]["sweep"] or UNNAMED
    return located(Plan(project, name, list(arguments), Path(roots.pop()), grid.launcher, grid.jobs, configs))


def of_each_sort(configs: Sequence[dict]) -> list[int]:
    """The number of the first run from which each differs in its seed alone, all values of which are checked."""
    numbers, same, seeds = dict[str, int](), dict[tuple, int](), set()
    first = []
    for number, config in enumerate(configs):
        if (of := same.get(parts_of(config))) is None:
            of = same[parts_of(config)] = numbers.setdefault(repr(config | {"seed": None}), number)
        if of == number:
            check_values(config)
        elif repr(config["seed"]) not in seeds:
            checked("seed", config["seed"], declared(RunSettings)["seed"])
        seeds.add(repr(config["seed"]))
        first.append(of)
    return first


def check_launcher(settings: dict) -> None:
    for key in COUNTS & settings.keys():
        value = settings[key]
        if value is not None and not is_whole(value, 1):
            raise UserError(f"hydra.launcher.{key}={value}: must be a whole number, at least 1")


def located(plan: Plan) -> Plan:
    """The same with the places of the records, which need the data to be there: what can be generated is made now."""
    locate, varying = Places(plan.root), set.union(*map(set, plan.jobs)) - set.intersection(*map(set, plan.jobs))
    labels = (" ".join(each for each in job if each in varying) for job in plan.jobs)
    runs = [described(*of, locate) for of in zip(plan.jobs, labels, plan.configs, strict=True)]
    first = different(runs, plan.configs)
    alike = len(runs) - len(first)
    jobs, configs, runs = ([of[number] for number in first] for of in (plan.jobs, plan.configs, runs))
    found = replace(plan, jobs=jobs, configs=configs, runs=runs, alike=alike)
    if all(run.places and not run.missing for run in runs) and not is_passing(plan.project, plan.arguments):
        keep(found, locate.read)
    return found


def different(runs: Sequence[Run], configs: Sequence[dict]) -> list[int]:
    """The numbers of the first run of each result; `seed=0,00` and `engine.lr=1e-3,0.001` are one."""
    first: dict[str, int] = {}
    for number, (run, config) in enumerate(zip(runs, configs, strict=True)):
        if not (alike := "\n".join(run.places)):
            alike = text(config | {"engine": identities.decisive("engine", config["engine"])})
        first.setdefault(alike, number)
    return list(first.values())


def described(job: list[str], label: str, config: dict, locate: Places) -> Run:
    names = {group: config[group]["name"] for group in ("backbone", "task", "dataset", "method")}
    engine = config["engine"]
    size = {
        "seed": config["seed"],
        "devices": engine["devices"],
        "nodes": engine.get("nodes", 1),
        "force": config["force"],
        "threads": engine.get("threads"),
    }
    try:
        places, missing = locate(config), None
    except UserError as error:
        places, missing = locate.recorded(config), str(error)
    return Run(job, label or " ".join(names.values()), **names, **size, places=places, missing=missing)


def kept(project: Path, arguments: Sequence[str]) -> Plan | None:
    """None where there is none, or one of something else, or a damaged one."""
    with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        found = json.loads(place(project, arguments).read_text())
        if found["stamp"] == stamp(project, found["read"]):
            runs = [Run(**run) for run in found["runs"]]
            jobs = [run.overrides for run in runs]
            sorts = [found["configs"][number] for number in found["sorts"]]
            configs = [of | {"seed": run.seed} for of, run in zip(sorts, runs, strict=True)]
            known = {key: found[key] for key in ("name", "launcher", "alike")} | {"root": Path(found["root"])}
            return Plan(project, arguments=list(arguments), jobs=jobs, configs=configs, runs=runs, **known)
    return None


def keep(plan: Plan, read: Iterable[Path]) -> None:
    """Where that can be: it saves the next look some seconds."""
    names = sorted(map(str, read))
    sorts = {parts_of(config): config for config in plan.configs}
    numbers = {parts: number for number, parts in enumerate(sorts)}
    content = {"name": plan.name, "root": str(plan.root), "launcher": plan.launcher, "alike": plan.alike}
    content |= {"configs": [*sorts.values()], "sorts": [numbers[parts_of(config)] for config in plan.configs]}
    content |= {"runs": [vars(run) for run in plan.runs], "read": names, "stamp": stamp(plan.project, names)}
    with suppress(UserError), replacing(place(plan.project, plan.arguments)) as temporary:
        temporary.write_text(json.dumps(content))


def place(project: Path, arguments: Sequence[str]) -> Path:
    name = sha256(repr([str(project.resolve()), *arguments]).encode()).hexdigest()[:16]
    return KEPT_IN / f"{name}.json"


def stamp(project: Path, read: Sequence[str]) -> str:
    """Of all that a plan follows from: names, sizes and times of change."""
    files = [*written(project), *map(Path, read)]
    seen = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files if file.exists()]
    return sha256(json.dumps([verdicts.stamp(), seen]).encode()).hexdigest()


def written(project: Path) -> list[Path]:
    """The files of configuration."""
    below = (folders_below(project / folder) for folder in ("conf", "sweeps"))
    return sorted(top / name for found in below for top, names in found for name in names if name.endswith(".yaml"))


def is_passing(project: Path, arguments: Sequence[str]) -> bool:
    """Whether a configuration may be another for the same arguments and files."""
    texts = [*arguments, *(file.read_text() for file in written(project))]
    return any(word in text for text in texts for word in PASSING)
