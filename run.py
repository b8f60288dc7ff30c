"""One experiment, or a sweep of them: `python run.py --help`."""

import signal
import sys
from pathlib import Path

HERE = Path(__file__).parent


def one(arguments: list[str]) -> None:
    """What Hydra makes of the arguments: one run, or the answer to a question."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from vltune.overrides import explained

    def main(config) -> str:
        from vltune.experiment import run

        return run(config, overrides=OmegaConf.to_container(HydraConfig.get().overrides.task))  # as typed

    with explained(HERE, arguments):
        hydra.main(version_base="1.3", config_path="conf", config_name="run")(main)()


def many(overrides: list[str]) -> int:
    """A sweep, and its exit status."""
    from vltune.command_line import check_options
    from vltune.sweep import launch, plan

    check_options(overrides)
    return launch.run(plan.plan(HERE, overrides))


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what follows is imported: there is nothing to leave in order
    from vltune.command_line import check_choices, check_single, command, of_sweep
    from vltune.runs.signals import GRACE, LONGER

    overrides = of_sweep(arguments)
    with command(GRACE if overrides is None else LONGER):
        check_choices(HERE / "conf", arguments, many=overrides is not None)
        if overrides is None:
            check_single(arguments)
            one(arguments)
        else:
            sys.exit(many(overrides))


if __name__ == "__main__":
    main(sys.argv[1:])
