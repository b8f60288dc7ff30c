"""mode=eval: the tuned model of a finished run, scored again."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from vltune import assemble
from vltune.engine.identity import identity as identify
from vltune.engine.interrupt import StopRequest
from vltune.errors import UserError
from vltune.experiment.beginning import make_fabric, prepare
from vltune.experiment.scoring import keep_features, score
from vltune.results import record as records


def evaluate(config: dict, overrides: list[str]) -> Path:
    """Scores the tuned model of a record again, and shows both figures."""
    from omegaconf import OmegaConf

    from vltune.engine import artifacts
    from vltune.engine.source import BadExamples

    if config["from"] is None:
        raise UserError("mode=eval: say which record, from=results/records/.../NAME.json")
    file = Path(config["from"])
    record = records.read(file)
    if record["status"] != "finished":
        raise UserError(f"{file}: the run is {record['status']}; only a finished one has a tuned model")
    mine = [override for override in overrides if not override.startswith(("mode=", "from="))]
    config = OmegaConf.to_container(OmegaConf.merge(record["config"], OmegaConf.from_dotlist(mine)))
    data, fingerprints = prepare(config)
    identity = identify(config, fingerprints)
    if identity["hash"] != record["identity"]["hash"]:
        raise UserError(
            f"{file}: another configuration, other data or other weights than the record's "
            f"({identity['hash']} for {record['identity']['hash']})"
        )
    settings = assemble.settings(config)
    fabric = make_fabric(settings)
    fabric.launch()
    fabric.seed_everything(config["seed"], verbose=False)
    model = assemble.build_model(config, data.facts)
    artifacts.read_tuned(file.with_suffix(".safetensors"), model)
    model.to(fabric.device)
    bad = BadExamples(config["dataset"]["max_bad_examples"])
    with StopRequest() as stop, TemporaryDirectory() as folder:
        if settings.cache_features:
            keep_features(fabric, model, data, set(settings.evaluate), settings, stop)
        for split in settings.evaluate:
            rows = score(fabric, model, data, split, settings, stop, bad, split, Path(folder))
            for name, value in (model.task.metrics(rows) if rows else {}).items():
                print(f"{split} {name}: {value:.2f} now, {record['metrics'][split][name]:.2f} recorded")
    return file
