"""`vltune`, and `python -m vltune`: everything that is not an experiment."""

import signal


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what follows is imported: there is nothing to leave in order
    from vltune.command_line import command

    with command():
        from vltune.cli import app

        app(prog_name="vltune")


if __name__ == "__main__":
    main()
