"""Whether a run's typed parts say what the plain configuration says that they are of."""

import json
from copy import deepcopy
from dataclasses import asdict, fields

from vltune.settings.config import RunConfig
from vltune.settings.groups import GROUPS


def check_round_trip(plain):
    """Byte for byte: keys, their order, and 1 for 1 and 1.0 for 1.0."""
    written, kept = text(plain), deepcopy(plain)
    config = RunConfig.of(kept)
    assert text(said(config)) == written
    assert text(config.plain) == text(kept) == written


def said(config):
    """What the parts say, of what the plain configuration names and in its order; what is no part as it stands there."""
    parts = {field.name.rstrip("_"): getattr(config, field.name) for field in fields(config)}
    parts |= {"engine": asdict(config.engine), "results_dir": str(config.results_dir)}
    parts["from"] = None if config.from_ is None else str(config.from_)
    found = {name: parts.get(name, value) for name, value in config.plain.items()}
    for name in GROUPS.keys() & found.keys():
        if found[name] is not None:
            found[name] = {key: found[name][key] for key in config.plain[name]}
    return found


def text(tree):
    return json.dumps(tree, default=str)
