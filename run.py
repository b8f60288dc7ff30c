"""One experiment, or a sweep of them: `python run.py --help`."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from vltune.entry import of_sweep, report_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="run")
def main(config: DictConfig) -> str:
    from hydra.core.hydra_config import HydraConfig

    from vltune.experiment import run

    return run(config, overrides=list(HydraConfig.get().overrides.task))


if __name__ == "__main__":
    here = Path(__file__).parent
    with report_errors(here / "conf", sys.argv[1:]):
        if (arguments := of_sweep(sys.argv[1:])) is None:
            main()
        else:
            from vltune.sweep import drive, plan

            sys.exit(drive.run(plan.plan(here, arguments)))
