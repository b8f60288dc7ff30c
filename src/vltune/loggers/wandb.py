"""Weights & Biases, https://docs.wandb.ai: a mirror of the record, written offline unless told otherwise."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from vltune.errors import UserError
from vltune.loggers import environment, sample, sent, summary
from vltune.loggers.environment import OFF
from vltune.loggers.logger import Logger
from vltune.loggers.sample import Look
from vltune.records import predictions as predicted
from vltune.records.predictions import PREDICTIONS

if TYPE_CHECKING:
    import wandb

_log = logging.getLogger(__name__)

THUMBNAIL = 224  # pixels at most: 64 photographs of a table are then 1 MB
REACH = 10  # seconds
LOST = "not be synced"  # in what W&B says when it gives up an upload; `finish` raises nothing then


class WandbLogger(Logger):
    """One W&B run per `start` ... `finish`; the same logger can serve several runs, one after another.

    What fails inside W&B never reaches the caller: one warning, then no more logging for this run; `finish` still tries
    to close it with its exit code.  `KeyboardInterrupt`, `SystemExit` and other non-`Exception`s pass.

    project, entity, tags: as in `wandb.init`; method, backbone, task and data set are tags as well.
    mode: `offline` writes files only, to be uploaded later; `online` uploads as the run goes.  WANDB_MODE may say less
    than that; where neither says anything it is `otherwise`.
    examples: rows of the table of predictions.  largest_artifact_mb: larger files are not kept as artifacts.
    start_timeout, finish_timeout: seconds that W&B may take to open a run, and to upload the rest of it at its end.

    An agent of a W&B sweep has chosen id, project and entity of its run, and that holds.  Raises `UserError` for another
    mode, also of the environment.
    """

    def __init__(
        self,
        project: str | None = None,
        mode: str | None = None,
        entity: str | None = None,
        tags: Iterable[str] = (),
        examples: int = 64,
        largest_artifact_mb: float = 100,
        start_timeout: float = 60,
        finish_timeout: float = 120,
        otherwise: str = "offline",
    ) -> None:
        if mode not in (None, "offline", "online"):
            raise UserError(f"logger.mode={mode}: choose offline or online, or turn W&B off with logger=none")
        self.mode, self.why = environment.mode(mode, otherwise)
        self.unheeded = environment.unheeded(_of_agent())
        self.project, self.entity, self.tags = environment.project(project), environment.entity(entity), tuple(tags)
        self.examples, self.largest_artifact_mb = examples, largest_artifact_mb
        self.start_timeout, self.finish_timeout = start_timeout, finish_timeout
        self.trouble: str | None = None  # what failed in the last run
        self.warns = True
        self._run: wandb.Run | None = None
        self._folder = self._scratch = Path()
        self._tables: dict[str, wandb.Table] = {}

    def start(self, record: dict, folder: Path) -> None:
        """Opens the run, with its files under `folder`/wandb.

        record: its identity, config, provenance and sweep.  The run's id follows from the identity, so that a run that is
        taken up again after preemption stays one W&B run.
        """
        self._open(record, folder, folder, run_id(record["identity"]), live=True)
        if self.mode == OFF:
            print(f"W&B: off ({self.why})", file=sys.stderr)
        if self._run is not None:
            why = f" ({self.why})" if self.why else ""
            print(f"W&B: {self._run.url or f'offline, {self._run.settings.sync_dir}'}{why}", file=sys.stderr)
            if self.unheeded:
                print(self.unheeded, file=sys.stderr)

    def log(self, values: dict[str, float], step: int) -> None:
        """Adds to the history.  step: optimiser steps so far; a resumed run's, which W&B has already, are left out."""
        if self._run is not None and not self.trouble and step >= self._run.starting_step:
            with self._guard("log"):
                self._run.log({name: value for name, value in values.items() if name != "step"}, step=step)

    def table(self, predictions: dict[str, list[dict]], look: Look) -> None:
        """A sample of the predictions with what they are about, shown beside the scores."""
        if self._run is not None and not self.trouble and self.examples:
            with self._guard("make a table"):
                from wandb import Table

                split = sample.split_shown(predictions)
                found = predictions.get(split, [])
                columns, rows = sample.table(found, self.examples, lambda: look(split))
                if rows:
                    self._tables[f"{split}/examples"] = Table(columns, [[*map(_cell, row)] for row in rows])

    def finish(self, record: dict, file: Path, exit_code: int) -> None:
        """Closes the run: every run, also one that failed (`exit_code` not 0), which else would show as finished.

        file: of the record; what lies beside it becomes artifacts with it.
        """
        run, self._run = self._run, None
        if run is None:
            return
        import wandb

        scores, outcome = summary.figures(record), summary.outcome(record)
        if exit_code == 0 and not self.trouble and self.mode == "online":
            with self._guard("be reached any more"):
                # Asks whose key this is.  Tables and artifacts would wait for minutes where nobody answers.
                wandb.Api(timeout=min(REACH, self.finish_timeout))
        # Steps of their own: W&B may have the last one already, from before an interruption.
        after = summary.last_step(record) + 1
        for name, values, step in (("scores", scores, after), ("tables", self._tables, after + 1)):
            if exit_code == 0 and values and not self.trouble and step >= run.starting_step:
                with self._guard(f"keep the {name}"):
                    run.log(values, step=step)
        if exit_code == 0 and not self.trouble:
            with self._guard("keep the files"):
                outcome |= self._keep(run, record, file)
        with self._guard("write the summary"):
            run.summary.update(scores | outcome)
        with self._guard("finish"):
            run.finish(exit_code=exit_code)
            if lost := _terminal.heard(LOST):
                raise ConnectionError(lost)
        if exit_code == 0 and not self.trouble:
            with self._guard("note what was sent"):
                place = self._server(), run.entity or "", run.project
                sent.note(self._folder, sent.Sent(*place, run.id, sent.digest(file)))
                if self.mode == "online":  # `wandb sync` would append the same curves
                    for log in self._folder.glob("wandb/offline-run-*/run-*.wandb"):
                        log.with_suffix(".wandb.synced").touch()

    def again(self, record: dict, file: Path, folder: Path, look: Look) -> None:
        """A run that had finished before: what W&B lacks of it is sent."""
        if self.mode != OFF:
            self.mirror(record, file, folder, look)

    def mirror(
        self, record: dict, file: Path, folder: Path, look: Look
    ) -> Literal["unchanged", "sent", "failed", "not reached"]:
        """Sends a finished record, unless W&B has it as it stands.  Sent again it is the same run, and nothing is doubled.

        folder: of the run, where is noted what was sent.  An agent's run is always filled: its sweep waits for the score.
        """
        self.trouble = None
        with self._guard("start"):
            if self.has(file, folder) and not _of_agent():
                return "unchanged"
            entry = sent.find(folder, self._server(), self.entity, self.project)
        if self.trouble:
            return "not reached"
        id = entry.run if entry else run_id(record["identity"])
        with (
            nullcontext(folder) if self.mode == "offline" else TemporaryDirectory(ignore_cleanup_errors=True) as scratch
        ):
            self._open(record, folder, Path(scratch), id, live=False)
            if self._run is None:
                return "not reached"
            for point in record.get("history", ()):
                self.log(point, point["step"])
            with self._guard("read the predictions"):
                self.table(sample.saved(file.with_suffix(PREDICTIONS), record), look)
            self.finish(record, file, exit_code=0)
        return "failed" if self.trouble else "sent"

    def ready(self) -> None:
        """Raises UserError where W&B is switched off, or refuses its settings."""
        if self.mode == OFF:
            raise UserError(f"{self.why}: W&B is switched off; unset it to send records")
        try:
            self._setup()
        except Exception as error:
            raise UserError(f"W&B could not start: {_reason(error)}") from None

    def _setup(self) -> Any:
        """wandb, and what its settings are.  Raises UserError where `wandb offline` or `wandb disabled` holds here."""
        environment.forget_empty()
        environment.give_room()
        import wandb  # 0.5 s to 0.8 s

        _terminal.take(wandb)
        settings = wandb.setup().settings
        if environment.most_reserved(self.mode, settings.mode) != self.mode:
            back = "enabled" if settings.mode == OFF else "online"
            raise UserError(f"`wandb {settings.mode}` holds here, against {self.mode}: `wandb {back}` ends that")
        return wandb, settings

    def has(self, file: Path, folder: Path) -> bool:
        """Whether the record in `file` was sent as it stands."""
        entry = sent.find(folder, self._server(), self.entity, self.project)
        return entry is not None and entry.record == sent.digest(file)

    def _open(self, record: dict, folder: Path, scratch: Path, id: str, live: bool) -> None:
        """folder: where is noted what was sent.  scratch: for W&B's files.  live: whether this process computes the run."""
        self._run, self._tables, self._folder, self._scratch, self.trouble = None, {}, folder, scratch, None
        if self.mode == OFF:
            return
        with self._guard("start"):
            if self.mode == "offline":
                _clear(scratch, id)
            # Images of tables would lie in the home folder, which may be another one where the run is uploaded from.
            os.environ["WANDB_DATA_DIR"] = str(scratch.resolve() / "wandb")
            wandb, _ = self._setup()
            scratch.mkdir(parents=True, exist_ok=True)
            if not os.access(scratch, os.W_OK):  # wandb would write to the temporary folder instead
                raise PermissionError(f"{scratch} cannot be written")
            chosen, settings = {"id": id, "project": self.project, "entity": self.entity}, summary.settings(record)
            if _of_agent():
                # W&B puts what its sweep sets in the place of whole groups of settings: "method": "lora".
                chosen, settings = {}, settings | {"settings": record["config"]}
            self._run = wandb.init(
                **chosen,
                mode=self.mode,
                dir=str(scratch.resolve()),
                name=summary.name(record["identity"]),
                group=record.get("sweep") or os.environ.get("WANDB_SWEEP_ID"),
                job_type=record["identity"]["task"],
                tags=[*dict.fromkeys([*summary.tags(record), *self.tags])],
                config=settings,
                resume="allow" if self.mode == "online" else None,
                reinit="create_new",  # a run left open by a failure must not swallow the next one
                settings=self._settings(wandb, live),
            )

    def _settings(self, wandb: Any, live: bool) -> wandb.Settings:
        """Of W&B, for one run of ours."""
        return wandb.Settings(
            console="off",
            silent=True,
            # The record holds commit and versions already; listing packages costs 0.1 s a run.
            disable_git=True,
            disable_code=True,
            x_save_requirements=False,
            x_disable_stats=not live,
            x_disable_machine_info=not live,
            stop_on_fatal_error=False,  # whatever the user's own settings say
            init_timeout=self.start_timeout,
            # By default `finish` waits for ever where the network is gone.
            finish_timeout=self.finish_timeout,
            finish_timeout_raises=True,
            # By default an artifact on its way is tried for ever so long, whatever finish_timeout says (0.31).
            x_graphql_retry_max=4,
            x_graphql_retry_wait_max_seconds=8,
            x_graphql_timeout_seconds=10,
        )

    def _keep(self, run: wandb.Run, record: dict, file: Path) -> dict[str, str]:
        """The record with its predictions, and what was tuned, as artifacts; what is too large is named in the summary."""
        from wandb import Artifact

        left_out, base = [], f"{summary.name(record['identity'])}-{record['identity']['hash']}"
        for kind, suffixes in (("record", (".json", PREDICTIONS)), ("model", (".safetensors",))):
            files = [self._own(file.with_suffix(suffix), record) for suffix in suffixes]
            files = [each for each in files if each.is_file()]
            large = [each for each in files if each.stat().st_size > 1e6 * self.largest_artifact_mb]
            left_out += [f"{each.name} ({each.stat().st_size / 1e6:,.0f} MB)" for each in large]
            if kept := [each for each in files if each not in large]:
                metadata = {"identity": record["identity"], "figures": summary.figures(record)}
                artifact = Artifact(f"{base}-{kind}", kind, metadata=metadata)
                for each in kept:
                    # No copy in the home folder: it may be another one where the files are uploaded from.
                    artifact.add_file(str(each.resolve()), policy="immutable", skip_cache=True)
                run.log_artifact(artifact)
                if self.mode == "online":  # else nobody would hear of an upload that failed
                    artifact.wait(self.finish_timeout)
        return {"run/left_out": ", ".join(left_out)} if left_out else {}

    def _own(self, file: Path, record: dict) -> Path:
        """Where a file beside the record is: predictions that are packed are written among W&B's files."""
        if file.suffix != PREDICTIONS or not predicted.is_packed(file, record):
            return file
        predicted.copy(file, copied := self._scratch / "wandb" / file.name)
        return copied

    def _server(self) -> str:
        if self.mode == "offline":
            return "offline"
        return self._setup()[1].base_url

    @contextmanager
    def _guard(self, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.trouble is None:
                self.trouble = f"could not {action}: {_reason(error)}"
                if self.warns:
                    _log.warning("W&B %s: off for this run; vltune wandb-sync sends its record", self.trouble)


def _clear(scratch: Path, id: str) -> None:
    """Before a run is opened offline: of an earlier process, what would double it."""
    # Without this, wandb's service sends its own telemetry from offline runs too (seen with 0.31).
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # W&B cannot resume offline runs: `wandb sync` would put the parts one after the other, with other steps.
    # The new files hold all steps, since a run that goes on logs those before its checkpoint again.
    for part in (*scratch.glob(f"wandb/offline-run-*-{id}"), scratch / "wandb" / "artifacts"):
        shutil.rmtree(part, ignore_errors=True)


def run_id(identity: dict) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _reason(error: Exception) -> str:
    """In one line; of settings that wandb refuses which they are, and what they were."""
    try:
        wrong = error.errors()[0]
        return f"{wrong['loc'][-1]} is {wrong['input']!r}: {wrong['msg']}"
    except (AttributeError, LookupError, TypeError):
        return " ".join(f"{type(error).__name__}: {error}".split())


def _of_agent() -> bool:
    """Whether an agent of a W&B sweep started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def _cell(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    import wandb

    from vltune.images import UnreadableImageError, opened

    try:
        with opened(value) as image:
            image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # decodes a large JPEG at a fraction of its size
            small = image.convert("RGB")
    except UnreadableImageError:
        return None
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return wandb.Image(small, file_type="jpg")


class _Terminal:
    """Listens in the place of the terminal, where W&B writes a dozen lines a run, and asks for a key that is missing."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def take(self, wandb: Any) -> None:
        self.said.clear()
        settings = wandb.Settings(silent=True)
        wandb.setup(settings)
        wandb.termsetup(settings, self)

    def heard(self, words: str) -> str | None:
        return next((said for said in self.said if words in said), None)

    def info(self, said: str) -> None:
        pass

    def warning(self, said: str) -> None:
        self.said.append(said)

    error = warning


_terminal = _Terminal()
