"""One process works on a run; of who has died, or was gone for long, another takes the place."""

import errno
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from vltune.errors import UserError
from vltune.runs import lock
from vltune.runs.lock import Lock, holder
from vltune.runs.signals import OwnedElsewhere

fork = multiprocessing.get_context("fork")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "apt-0a1b2c3d-seed0"


def make(folder, lost=lambda why: None, **told):
    return Lock(folder, lambda: {"phase": "train", **told}, lost)


@pytest.fixture
def mine(folder):
    with make(folder, step=3, total=10, unit="step") as made:
        assert made.claim() is None
        yield made


def rewrite(folder, **content):
    """As another machine would have it."""
    file = folder / lock.NAME
    file.write_text(json.dumps(json.loads(file.read_text()) | content))


def age(folder, seconds):
    then = time.time() - seconds
    os.utime(folder / lock.NAME, (then, then))


def elsewhere(folder, seconds=0.0):
    """A lock of another machine that was last renewed so many seconds ago."""
    with make(folder) as made:
        made.claim()
        made.held = False  # not released
    rewrite(folder, host="node7", boot="another machine", token="theirs")
    age(folder, seconds)


def test_who_comes_second_is_told_who_works_and_how_far(mine, folder):
    other = make(folder).claim()
    assert other.content["pid"] == os.getpid()
    assert not other.stale
    assert str(other).endswith("(train at step 3 of 10)")
    assert f"process {os.getpid()}, since 20" in str(other)
    mine.release()
    assert holder(folder) is None
    assert make(folder).claim() is None


def test_nothing_is_left_of_a_lock_that_is_released(folder):
    with make(folder) as made:
        made.claim()
        made._beat()
    assert not folder.exists()


def test_nobody_works_where_there_is_no_folder(tmp_path):
    assert holder(tmp_path / "none") is None


def test_it_is_renewed_with_what_is_told(folder, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    steps = iter(range(1000))
    with Lock(folder, lambda: {"phase": "train", "step": next(steps)}, print) as made:
        made.claim()
        while holder(folder).content["step"] < 3:
            time.sleep(0.01)


def test_slurm_jobs_are_named_as_squeue_names_them(folder, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    assert make(folder).owner["job"] == "41"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "40")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    with make(folder) as made:
        made.claim()
        assert "SLURM job 40_7" in str(holder(folder))


@pytest.mark.parametrize("waited_for", [True, False], ids=["gone", "zombie"])
def test_a_killed_process_on_this_machine_is_replaced_at_once(folder, waited_for):
    child = os.fork()
    if child == 0:
        make(folder).claim()
        os._exit(9)
    os.waitid(os.P_PID, child, os.WEXITED | (0 if waited_for else os.WNOWAIT))
    assert holder(folder).stale
    with make(folder) as made:
        assert made.claim() is None
        assert holder(folder).content["pid"] == os.getpid()
    if not waited_for:
        os.waitpid(child, 0)


def test_an_id_that_another_process_has_by_now_tells_nothing(mine, folder):
    rewrite(folder, began="1")
    assert holder(folder).dead


def test_a_process_that_this_user_may_not_see_counts_as_alive(mine, folder, monkeypatch):
    def refuse(pid, signum):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(lock, "_state", lambda pid: (None, None))
    assert not holder(folder).stale


@pytest.mark.parametrize("seconds", [0, lock.STALE - 5])
def test_another_machine_is_left_alone_while_it_renews(folder, seconds):
    elsewhere(folder, seconds)
    other = make(folder).claim()
    assert other.content["host"] == "node7"
    assert not other.stale


@pytest.mark.parametrize("renews", [False, True])
def test_another_machine_is_replaced_once_it_is_silent_while_it_is_watched(folder, monkeypatch, renews):
    seconds = [0.0]
    monkeypatch.setattr(lock.time, "monotonic", lambda: seconds[0])
    elsewhere(folder, lock.STALE + 5)
    with make(folder) as made:
        for seconds[0] in (0, lock.SURE / 2, lock.SURE):
            assert made.claim().stale
        if renews:
            rewrite(folder, step=4)
            age(folder, lock.STALE + 5)  # the file server's clock was set: even what is new looks old
        seconds[0] = lock.SURE + 1
        assert (made.claim() is None) == (not renews)
        assert ("theirs" in (folder / lock.NAME).read_text()) == renews


@pytest.mark.parametrize("off", [-1000, 1000])
def test_this_machines_clock_decides_nothing(folder, monkeypatch, off):
    elsewhere(folder)
    right = time.time
    monkeypatch.setattr(lock.time, "time", lambda: right() + off)
    assert abs(holder(folder).age) < 5
    assert not make(folder).claim().stale
    then = right() - lock.STALE - 30
    os.utime(folder / lock.NAME, (then, then))
    assert make(folder).claim().stale


def race(folder, takers):
    """How many of several processes that ask at the same time get the lock."""
    barrier, winners = fork.Barrier(takers), fork.Value("i", 0)

    def take():
        made = make(folder)
        barrier.wait()
        if made.claim() is None:
            with winners.get_lock():
                winners.value += 1
        barrier.wait()  # a winner that ends is stale at once
        os._exit(0)

    processes = [fork.Process(target=take) for _ in range(takers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return winners.value


def no_links(content, name):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("stale", [True, False])
def test_one_of_many_who_ask_at_once_gets_it(folder, monkeypatch, links, stale):
    monkeypatch.setattr(lock, "SURE", -1)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    for _ in range(3):
        if stale:
            elsewhere(folder, lock.STALE + 5)
        assert race(folder, 6) == 1
        (folder / lock.NAME).unlink()


def test_an_owner_that_is_dead_to_all_is_replaced_by_one(folder):
    """The winner of the race before has ended, so that all judge its lock stale at once."""
    for _ in range(4):
        assert race(folder, 6) == 1


def test_a_link_whose_answer_was_lost_counts(folder, monkeypatch):
    link = os.link

    def loses(content, name):
        link(content, name)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", loses)
    with make(folder) as made:
        assert made.claim() is None


def sleeps(monkeypatch, seconds):
    clock = lock._elapsed
    monkeypatch.setattr(lock, "_elapsed", lambda: clock() + seconds)


def test_an_owner_that_slept_and_was_replaced_stops_and_touches_nothing(folder, monkeypatch):
    told = []
    with make(folder, told.append) as made:
        made.claim()
        rewrite(folder, token="theirs", user="ada", host="node7", pid=7)
        sleeps(monkeypatch, 600)
        with pytest.raises(OwnedElsewhere, match=r"apt-0a1b2c3d-seed0: taken over by ada on node7, process 7, since"):
            made.assure()
        assert len(told) == 1
    assert "theirs" in (folder / lock.NAME).read_text()


def test_an_owner_that_slept_until_another_had_finished_stops(folder, monkeypatch):
    with make(folder) as made:
        made.claim()
        (folder / lock.NAME).unlink()
        sleeps(monkeypatch, 600)
        with pytest.raises(OwnedElsewhere, match="taken over, and finished"):
            made.assure()
        assert holder(folder) is None


def test_an_owner_that_slept_unnoticed_goes_on(mine, folder, monkeypatch):
    age(folder, 600)
    sleeps(monkeypatch, 600)
    mine.assure()
    assert holder(folder).age < 5


def test_a_lock_that_a_person_deleted_is_made_again(mine, folder):
    (folder / lock.NAME).unlink()
    mine._beat()
    mine.assure()
    assert holder(folder).content["pid"] == os.getpid()


def test_an_owner_beside_whom_another_began_stops(mine, folder):
    """Where a file system keeps none of its promises, one of the two is left."""
    rewrite(folder, token="theirs")
    mine._beat()
    with pytest.raises(OwnedElsewhere):
        mine.assure()


def full_disk(monkeypatch):
    def refuse(*arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock.Path, "write_text", refuse)


def test_a_full_disk_does_not_end_a_lock(mine, folder, monkeypatch):
    age(folder, 50)
    full_disk(monkeypatch)
    mine._beat()
    mine.assure()
    assert holder(folder).age < 5


def test_a_folder_that_cannot_be_written_is_one_line(folder, monkeypatch):
    full_disk(monkeypatch)
    with pytest.raises(UserError, match=r"seed0: running.json cannot be written here \(No space left on device\)"):
        make(folder).claim()


def test_a_file_that_is_no_lock_yet_is_held_until_it_is_old(folder, monkeypatch):
    """Without hard links a lock is empty before it is written, or where its writer was killed just then."""
    folder.mkdir(parents=True)
    (folder / lock.NAME).touch()
    assert str(make(folder).claim()) == "another process"
    age(folder, lock.STALE + 5)
    monkeypatch.setattr(lock, "SURE", -1)
    with make(folder) as made:
        assert made.claim() is None


def test_what_killed_processes_left_is_in_nobodys_way(folder, monkeypatch):
    monkeypatch.setattr(lock, "SURE", -1)
    elsewhere(folder, lock.STALE + 5)
    left = [folder / f".{lock.NAME}.theirs.replaced", folder / f".{lock.NAME}.1.tmp"]  # one died while it took over
    young = folder / f".{lock.NAME}.2.tmp"
    for file in [*left, young]:
        file.touch()
    for file in left:
        os.utime(file, (time.time() - 600,) * 2)
    with make(folder) as made:
        assert made.claim().stale
        assert made.claim() is None
        assert not [file for file in left if file.exists()]
        assert young.exists()  # somebody may be about to ask
    assert not folder.exists()


@pytest.mark.parametrize("last", ["replace", "unlink"])
def test_what_was_killed_while_it_took_over_is_in_nobodys_way(folder, monkeypatch, last):
    """A test kills runs at any moment, and some take a lock over just then."""
    monkeypatch.setattr(lock, "SURE", -1)
    elsewhere(folder, lock.STALE + 5)

    def killed():
        setattr(Path, last, lambda *arguments, **named: os._exit(0))
        make(folder).claim()

    process = fork.Process(target=killed)
    process.start()
    process.join()
    assert list(folder.glob(".*.replaced"))
    with make(folder) as made:
        assert made.claim() is None or made.claim() is None
    assert not folder.exists()


@pytest.fixture
def in_no_time(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.1)


def test_a_file_system_that_says_for_good_that_nothing_is_there_is_told(tmp_path, monkeypatch, in_no_time):
    """As /proc and some automounts do: of the folder, or of what is written into it."""
    with pytest.raises(UserError, match=r"/proc/x/run: running.json cannot be written here \(No such file"):
        make(Path("/proc/x/run")).claim()

    def gone(*arguments, **more):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(Path, "write_text", gone)
    with pytest.raises(UserError, match=r"running.json cannot be written here \(No such file"):
        make(tmp_path / "run").claim()


def test_a_lock_that_is_there_and_cannot_be_read_is_told(folder, in_no_time):
    folder.mkdir(parents=True)
    (folder / lock.NAME).symlink_to("nowhere")
    with pytest.raises(UserError, match=r"running.json: is there and cannot be read: delete it"):
        make(folder).claim()


@pytest.mark.parametrize(
    "content",
    *[
        [
            "",
            "[]",
            "null",
            "5",
            '"x"',
            "{}",
            '{"pid": "x"}',
            '{"pid": -1}',
            '{"pid": 1, "seconds": "x"}',
            "\xff",
            "[" * 9999,
        ]
    ],
)
@pytest.mark.parametrize("seconds", [0, 3600, -3600])
def test_what_is_no_lock_is_another_process_until_it_is_old(folder, content, seconds, monkeypatch):
    monkeypatch.setattr(lock, "SURE", 0.01)
    folder.mkdir(parents=True)
    (folder / lock.NAME).write_text(content, encoding="latin-1")
    age(folder, seconds)
    found = holder(folder)
    assert (str(found), found.dead, found.stale) == ("another process", False, seconds != 0)
    with make(folder) as made:
        assert made.claim().stale == (seconds != 0)
        time.sleep(0.02)
        assert (made.claim() is None) == (seconds != 0)


def test_of_a_foreign_lock_what_it_says_is_told_and_no_more(folder):
    elsewhere(folder)
    rewrite(folder, step="x", total=None)
    assert str(holder(folder)).endswith("(train)")
    rewrite(folder, boot=lock.boot())
    content = json.loads((folder / lock.NAME).read_text())
    del content["began"]
    (folder / lock.NAME).write_text(json.dumps(content | {"pid": 2**22 + 1}))
    assert not holder(folder).dead  # nothing tells
