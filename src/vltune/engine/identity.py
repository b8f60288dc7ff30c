"""Which run this is: what decides its result, and nothing else."""

from __future__ import annotations

import hashlib
import json

# Where things lie, how they come there, what they run on: another value gives the same result.  What data and weights
# hold is decisive, and enters by its fingerprint.
NOT_DECISIVE = {
    "dataset": ("data_dir", "subfolder", "make", "generate", "answers", "max_bad_examples"),
    "engine": (
        "accelerator",
        "devices",
        "nodes",
        "workers",
        "threads",
        "micro_batch_size",
        "eval_batch_size",
        "checkpoint_seconds",
        "cache_features",
        "features_dir",
    ),
    "backbone": ("weights", "weights_from", "tower_weights", "protocol", "sizes", "tokenizer"),
}

# Settings that came after the first records.  At the value that was the only one until then a setting is left out of the
# hash, so that those records stay what they are.
SINCE = {
    "dataset": {"decode": "exact", "train_fraction": 1.0, "train_fraction_seed": 0},
    "engine": {"eval_examples": None, "group_by_length": False},
}


def identity(config: dict, weights: str | None, data: str) -> dict:
    """backbone, method, task, dataset, seed and `hash`: 8 hexadecimal digits of the decisive configuration, the seed
    left out.  weights, data: fingerprints of the pretrained weights and of the data."""
    text = json.dumps({**settings(config), "weights": weights, "data": data}, sort_keys=True)
    return {
        **{group: config[group]["name"] for group in ("backbone", "method", "task", "dataset")},
        "seed": config["seed"],
        "hash": hashlib.sha256(text.encode()).hexdigest()[:8],
    }


def settings(config: dict) -> dict:
    """{group: its decisive settings} of a resolved configuration."""
    groups = ("method", "backbone", "task", "dataset", "engine")
    return {group: decisive(group, config[group]) for group in groups if isinstance(config.get(group), dict)}


def decisive(group: str, settings: dict) -> dict:
    left_out, added = NOT_DECISIVE.get(group, ()), SINCE.get(group, {})
    return {
        key: value
        for key, value in settings.items()
        if key not in left_out and not (key in added and value == added[key])
    }
