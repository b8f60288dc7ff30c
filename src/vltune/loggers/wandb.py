"""Weights & Biases, https://docs.wandb.ai: a mirror of the record, written offline unless told otherwise."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vltune.errors import UserError

_log = logging.getLogger(__name__)


class WandbLogger:
    """One W&B run per `start` ... `finish`; the same logger can serve several runs, one after another.

    What fails inside W&B never reaches the caller: one warning, then no more logging for this run; `finish` still tries
    to close it with its exit code.  `KeyboardInterrupt`, `SystemExit` and other non-`Exception`s pass.

    project, entity, tags: as in `wandb.init`.
    mode: `offline` writes files only, to be uploaded later by `wandb sync`; `online` uploads as the run goes.

    Raises `UserError` for another mode.
    """

    def __init__(
        self, project: str = "vltune", mode: str = "offline", entity: str | None = None, tags: Iterable[str] = ()
    ) -> None:
        if mode not in ("offline", "online"):
            raise UserError(f"logger.mode={mode}: choose offline or online, or turn W&B off with logger=none")
        self.project, self.mode, self.entity, self.tags = project, mode, entity, tuple(tags)
        self._run = None
        self._broken = False

    def start(self, identity: dict, config: dict, folder: Path, group: str | None) -> None:
        """Opens the run, with its files under `folder`/wandb.

        identity: {backbone, method, task, dataset, seed, hash}; the run's id follows from it, so that a run that is
            taken up again after preemption stays one W&B run (online: W&B cannot resume offline runs).
        config: plain and resolved, never a `DictConfig`; `identity` is added to it.
        group: the table or sweep that this run belongs to.
        """
        self._run, self._broken = None, False
        with self._guard("start"):
            if self.mode == "offline":
                # Without this, wandb's service sends its own telemetry from offline runs too (seen with 0.31).
                os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
            import wandb  # 0.5 s to 0.8 s

            folder.mkdir(parents=True, exist_ok=True)  # wandb would write to the temporary folder instead
            self._run = wandb.init(
                project=self.project,
                entity=self.entity,
                tags=self.tags,
                mode=self.mode,
                dir=str(folder.resolve()),
                id=_run_id(identity),
                name="{method}-{backbone}-{task}-{dataset}-seed{seed}".format(**identity),
                group=group,
                job_type=identity["task"],
                config={**config, "identity": identity},
                resume="allow",
                reinit="create_new",  # a run left open by a failure must not swallow the next one
                settings=wandb.Settings(
                    console="off",
                    silent=self.mode == "offline",
                    # The record holds commit and versions already; listing packages costs 0.1 s a run.
                    disable_git=True,
                    disable_code=True,
                    x_save_requirements=False,
                    # By default `finish` waits for ever where the network is gone.
                    finish_timeout=300,
                    finish_timeout_raises=True,
                ),
            )
            if self.mode == "offline":
                _log.info("W&B is offline; to upload this run: wandb sync %s", Path(self._run.dir).parent)

    def log(self, values: dict[str, float], step: int) -> None:
        """Adds to the history.  step: optimiser steps so far; W&B drops a step smaller than the last one."""
        if self._run is not None and not self._broken:
            with self._guard("log"):
                self._run.log(values, step=step)

    def finish(self, summary: dict, exit_code: int) -> None:
        """Closes the run: every run, also one that failed (`exit_code` not 0), which else would show as finished.

        summary: what the run comes to, such as {"cost/method_params": 42, "test/vqa_score": 71.2}.
        """
        run, self._run = self._run, None
        if run is not None:
            with self._guard("write the summary"):
                run.summary.update(summary)
            with self._guard("finish"):
                run.finish(exit_code=exit_code)

    @contextmanager
    def _guard(self, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._broken:
                reason = " ".join(str(error).split())
                _log.warning("W&B could not %s, and is off for this run: %s: %s", action, type(error).__name__, reason)
            self._broken = True


def _run_id(identity: dict) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
