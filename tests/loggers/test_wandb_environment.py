"""What the environment says of W&B is heeded, or told in one line."""

import sys

import pytest
from wandb_server import serving
from wandb_user import LOGGED, User

from vltune.errors import UserError
from vltune.loggers import environment
from vltune.loggers.wandb import WandbLogger

NAMES = ("MODE", "DISABLED", "PROJECT", "DIR", "RUN_ID", "NAME", "RUN_GROUP", "JOB_TYPE", "TAGS", "RESUME")


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)


@pytest.fixture
def user(tmp_path):
    return User(tmp_path)


@pytest.mark.parametrize(
    ("said", "asked", "otherwise", "mode", "why"),
    [
        ({}, None, "offline", "offline", ""),
        ({}, None, "online", "online", ""),
        ({}, "online", "offline", "online", ""),
        ({"WANDB_MODE": ""}, None, "online", "online", ""),
        ({"WANDB_MODE": "online"}, None, "offline", "online", "WANDB_MODE=online"),
        ({"WANDB_MODE": "online"}, "offline", "offline", "offline", ""),
        ({"WANDB_MODE": "run"}, None, "offline", "online", "WANDB_MODE=run"),
        ({"WANDB_MODE": "offline"}, "online", "offline", "offline", "WANDB_MODE=offline"),
        ({"WANDB_MODE": "offline"}, None, "online", "offline", "WANDB_MODE=offline"),
        ({"WANDB_MODE": "dryrun"}, "online", "online", "offline", "WANDB_MODE=dryrun"),
        ({"WANDB_MODE": "disabled"}, "online", "offline", "disabled", "WANDB_MODE=disabled"),
        ({"WANDB_MODE": "disabled"}, "offline", "offline", "disabled", "WANDB_MODE=disabled"),
        ({"WANDB_DISABLED": "true"}, "online", "online", "disabled", "WANDB_DISABLED=true"),
        ({"WANDB_DISABLED": "1", "WANDB_MODE": "online"}, None, "online", "disabled", "WANDB_DISABLED=1"),
        ({"WANDB_DISABLED": "false"}, "online", "online", "online", ""),
    ],
)
def test_what_sends_least_holds(monkeypatch, said, asked, otherwise, mode, why):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert environment.mode(asked, otherwise) == (mode, why)
    logger = WandbLogger(mode=asked, otherwise=otherwise)
    assert (logger.mode, logger.why) == (mode, why)


@pytest.mark.parametrize("said", ["shared", "nonsense", "Offline", "off"])
def test_another_mode_is_refused_before_anything_runs(monkeypatch, said):
    monkeypatch.setenv("WANDB_MODE", said)
    with pytest.raises(UserError) as error:
        WandbLogger()
    assert str(error.value) == f"WANDB_MODE={said}: vltune writes online, offline or, with disabled, nothing; unset it"


def test_the_project_is_the_environment_s_unless_one_is_named(monkeypatch):
    assert WandbLogger().project == "vltune"
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    assert (WandbLogger().project, WandbLogger("mine").project) == ("theirs", "mine")


def test_what_is_not_heeded_is_named(monkeypatch):
    assert WandbLogger().unheeded == ""
    monkeypatch.setenv("WANDB_DIR", "/scratch")
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    told = "not heeded: names, folder and id follow from the record (docs/wandb.md)"
    assert WandbLogger().unheeded == f"W&B: WANDB_DIR, WANDB_RUN_ID {told}"
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")  # an agent has chosen the id
    assert WandbLogger().unheeded == f"W&B: WANDB_DIR {told}"


def logged(user, mode=None, **said):
    user.environment |= said
    return user.logs(user.record(), mode=mode)


def sync(user, *arguments, **said):
    user.environment |= said
    command = "from vltune.cli import app; app()"
    return user.run(
        sys.executable, "-c", command, "wandb-sync", "--results-dir", str(user.home / "results"), *arguments
    )


def test_a_run_where_it_is_switched_off(user):
    with serving() as server:
        user.knows(server)
        done = logged(user, "online", WANDB_MODE="disabled")
        assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "W&B: off (WANDB_MODE=disabled)\n")
        assert not server.asked
    assert not list(user.home.rglob("*wandb*"))


def test_a_run_where_offline_is_said(user):
    with serving() as server:
        user.knows(server)
        done = logged(user, "online", WANDB_MODE="offline")
        assert not server.asked
    [files] = user.home.rglob("offline-run-*")
    assert (done.returncode, done.stderr) == (0, f"W&B: offline, {files} (WANDB_MODE=offline)\n")


def test_sync_where_offline_is_said_writes_files(user):
    with serving() as server:
        user.knows(server).record()
        done = sync(user, WANDB_MODE="offline")
        assert not server.asked
    assert (done.returncode, done.stderr) == (0, "W&B: offline (WANDB_MODE=offline)\n")
    assert len(list(user.home.rglob("offline-run-*"))) == 1


def test_sync_where_variables_are_empty_sends_as_without_them(user):
    user.record()
    done = sync(user, "--dry-run", WANDB_MODE="", WANDB_BASE_URL=" ", WANDB_INIT_TIMEOUT="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("would be sent: ")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"WANDB_MODE": "disabled"}, "WANDB_MODE=disabled: W&B is switched off; unset it to send records"),
        (
            {"WANDB_MODE": "nonsense"},
            "WANDB_MODE=nonsense: vltune writes online, offline or, with disabled, nothing; unset",
        ),
        ({"WANDB_BASE_URL": "nonsense"}, "W&B could not start: base_url is 'nonsense': Input should be a valid URL"),
        ({"WANDB_INIT_TIMEOUT": "soon"}, "W&B could not start: init_timeout is 'soon': Input should be a valid number"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_sync_where_nothing_can_be_sent_is_one_line(user, said, told, dry):
    user.record()
    done = sync(user, *(["--dry-run"] if dry else []), **said)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {told}")


def test_another_mode_of_sync_is_refused(user):
    done = sync(user, "--mode", "shared")
    assert (done.returncode, done.stderr) == (2, "error: --mode shared: use online or offline\n")


def test_a_server_that_is_none_costs_a_run_one_line(user):
    done = logged(user, "online", WANDB_BASE_URL="nonsense")
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("W&B could not start: base_url is 'nonsense': Input should be a valid URL")


def test_what_wandb_disabled_left_behind_is_told(user):
    settings = user.home / "settings"
    settings.write_text("[default]\nmode = disabled\n")
    done = logged(user, "offline", WANDB_CONFIG_DIR=str(user.home))
    assert done.returncode == 0
    line = done.stderr.splitlines()[-1]
    assert "`wandb disabled` holds here, against offline: `wandb enabled` ends that" in line


@pytest.mark.parametrize("home", [None, "/proc", "a file"])
def test_without_room_at_home_the_terminal_gets_one_line_too(user, home):
    (user.home / "file").write_text("")
    user.environment.pop("HOME")
    done = logged(user, **({} if home is None else {"HOME": str(user.home / "file") if home == "a file" else home}))
    [files] = user.home.rglob("offline-run-*")
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", f"W&B: offline, {files}\n")


def test_without_a_home_folder_at_all(user):
    """As in a container whose user is in no list."""
    user.environment.pop("HOME")
    file = user.record()
    nobody = "import pwd\ndef unknown(*_):\n    raise KeyError\npwd.getpwuid = unknown\n" + LOGGED.replace(
        '"mode": "online", ', ""
    )
    given = f'[{{}}, "{file}", "{user.home / "run"}", 3, 0]'
    done = user.run(sys.executable, "-c", nobody, given)
    [files] = user.home.rglob("offline-run-*")
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", f"W&B: offline, {files}\n")


def test_a_folder_that_cannot_be_made_costs_one_line(user):
    (user.home / "file").write_text("")
    done = user.logs(user.record(), folder=user.home / "file" / "run", mode=None)
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("W&B could not start: NotADirectoryError: ")
