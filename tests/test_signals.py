"""Ctrl-C and SIGTERM end every command within ten seconds, wherever it is, with one line and 128 + the signal."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
from filelock import FileLock

from vltune.runs.lock import NAME
from vltune.runs.signals import GRACE, LONGER

ROOT = Path(__file__).parents[1]
RUN, VLTUNE = [sys.executable, "run.py"], [sys.executable, "-m", "vltune"]
SMALL = ["engine.batch_size=8", "dataset.generate.images={train: 24, val: 8, test: 8}"]
SECONDS = 10


def begun(command):
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def until(happened, process=None, seconds=60):
    over = time.monotonic() + seconds
    while not happened() and time.monotonic() < over and (process is None or process.poll() is None):
        time.sleep(0.01)


def stopped(process, signum):
    """-> the exit status and what was written to stderr, once the process has ended, which takes at most SECONDS."""
    process.send_signal(signum)
    try:
        _, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail("still there")
    return process.returncode, errors


def python(code, *arguments):
    process = begun([sys.executable, "-c", code, *map(str, arguments)])
    process.stdout.readline()  # it says that it has begun
    return process


HEEDED = "import sys, time; from vltune.command_line import command\n"
WORK = {
    "stops between two pieces": (
        "from vltune.runs.signals import StopRequest\n"
        "    with StopRequest() as stop:\n        while True: time.sleep(0.01); stop.check()"
    ),
    "sleeps": "time.sleep(60)",
    "lets no exception pass": (
        "while True:\n        try: time.sleep(60)\n        except BaseException as error: print(error, flush=True)"
    ),
    "lets none leave a callback": (
        "import weakref\n    class Some: pass\n"
        "    while True:\n        some = Some(); gone = weakref.ref(some, lambda ref: time.sleep(0.5)); del some"
    ),
    "makes an error of it": "try: time.sleep(60)\n    except BaseException: raise AttributeError('half') from None",
    "makes an exit of it": "try: time.sleep(60)\n    except BaseException: sys.exit(1)",
    "makes a user's error of it": (
        "from vltune.errors import UserError\n    try: time.sleep(60)\n    except BaseException: pass\n"
        "    raise UserError('the configuration')"
    ),
    "returns to no Python code": "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
    "waits for a thread": "import threading; threading.Thread(target=time.sleep, args=(60,)).start()",
    "only notes that it is asked": (
        "from vltune.runs.signals import StopRequest\n"
        "    with StopRequest(): time.sleep(60); time.sleep(60); time.sleep(60)"
    ),
}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", WORK)
def test_whatever_a_process_does(work, signum):
    code = f"{HEEDED}with command(0.3):\n    print('begun', flush=True)\n    {WORK[work]}"
    if work == "only notes that it is asked":  # a sleep goes on after a signal that is only noted
        code = code.replace("time.sleep(60)", "time.sleep(2)")
    status, errors = stopped(python(code), signum)
    assert status == 128 + signum
    assert "Traceback" not in errors
    if work != "waits for a thread":  # all is done there, and the interpreter ends
        assert errors.startswith(f"stopped by {signum.name}")


def test_what_native_code_ends_tells_where_it_was():
    code = f"{HEEDED}import os\nwith command():\n    print('begun', flush=True)\n    os.abort()"
    process = python(code)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGABRT
    assert errors.startswith("Fatal Python error: Aborted") and 'File "<string>", line 5 in <module>' in errors


def test_what_a_copy_of_the_process_is_told_is_not_for_the_process():
    code = f"{HEEDED}import os\nwith command(0.2):\n    print('begun', flush=True)\n" + (
        "    child = os.fork()\n    if not child: time.sleep(60)\n"
        "    time.sleep(0.2); os.kill(child, 15)\n    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    time.sleep(0.5)\n    print('still here')"
    )
    out, errors = python(code).communicate(timeout=20)
    assert (out, errors) == ("143\nstill here\n", "")


def test_a_second_ctrl_c_does_not_wait():
    lets_none_pass = WORK["lets no exception pass"].replace("try: ", "try: print('begun', flush=True); ")
    process = python(f"{HEEDED}with command(30):\n    {lets_none_pass}")
    process.send_signal(signal.SIGINT)
    process.stdout.readline()
    assert stopped(process, signal.SIGINT)[0] == 128 + signal.SIGINT


def test_the_time_that_is_given_is_within_ten_seconds():
    assert GRACE < LONGER < SECONDS


@pytest.mark.parametrize("after", [0.15, 0.6, 1.5])
@pytest.mark.parametrize(
    ("command", "signum"),
    [
        ([*RUN, "mode=cost", "results_dir=OUT"], signal.SIGINT),
        ([*RUN, "-m", "mode=cost", "seed=0,1", "results_dir=OUT"], signal.SIGTERM),
        ([*VLTUNE, "report", "mini", "--out", "OUT"], signal.SIGTERM),
        ([*VLTUNE, "sweep", "plan", "mini"], signal.SIGINT),
    ],
)
def test_while_it_imports_and_composes(command, signum, after, tmp_path):
    process = begun([argument.replace("OUT", str(tmp_path)) for argument in command])
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
    status, errors = stopped(process, signum)
    assert "Traceback" not in errors
    # Before its first line of ours and after its last the interpreter dies of the signal itself.
    assert status in (128 + signum, -signum, 0), errors


@pytest.fixture
def job(tmp_path):
    places = [f"dataset.data_dir={tmp_path / 'world'}", f"results_dir={tmp_path / 'results'}"]
    return ["method=lora", *SMALL, *places, f"engine.features_dir={tmp_path / 'features'}"]


def is_stopped(process, signum, line):
    status, errors = stopped(process, signum)
    assert status == 128 + signum, errors
    assert errors.splitlines()[-1] == f"stopped by {signum.name}{line}"
    assert "Traceback" not in errors


def test_while_weights_are_hashed(job, tmp_path):
    weights, size = tmp_path / "weights.safetensors", 2**38
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with weights.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # holes, which take no room
    process = forked.Process("run.py", *job, f"weights={weights}")
    until(lambda: is_open(process, weights), process)
    is_stopped(process, signal.SIGTERM, "")


def is_open(process, file):
    with contextlib.suppress(OSError):
        return any(link.readlink() == file for link in Path(f"/proc/{process.pid}/fd").iterdir())
    return False


def test_while_data_is_generated(job, tmp_path):
    process = forked.Process("run.py", *job, "dataset.generate.images.train=20000")
    until(lambda: list(tmp_path.glob("world/.*.partial/raw")), process)
    is_stopped(process, signal.SIGINT, "")


def test_while_it_waits_for_the_process_that_works_on_the_run(job, tmp_path):
    """Of another machine, which is well: its lock is young."""
    first = forked.Process("run.py", *job, "engine.max_steps=100000")
    until(lambda: list(tmp_path.glob(f"results/**/{NAME}")), first)
    (lock,) = tmp_path.glob(f"results/**/{NAME}")
    first.kill()
    first.communicate()
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"boot": "another machine"}))
    process = begun([*RUN, *job, "engine.max_steps=100000"])
    assert "waiting" in process.stderr.readline()
    is_stopped(process, signal.SIGTERM, ": nothing was begun")


def test_while_it_waits_for_features_that_another_computes_while_it_trains_and_while_it_counts_costs(job, tmp_path):
    meter = ["run.py", *job, "backbone=meter_mini", "engine.checkpoint_seconds=0.05"]
    process = forked.Process(*meter, "engine.max_steps=100000")
    until(lambda: list(tmp_path.glob("results/**/last.pt")), process)
    is_stopped(process, signal.SIGTERM, ": saved; the same command resumes it")
    for file in tmp_path.glob("features/*/*.arrow"):
        file.unlink()
    locks = [FileLock(file) for file in tmp_path.glob("features/*/.lock")]
    for lock in locks:
        lock.acquire()
    process = begun([sys.executable, *meter, "engine.max_steps=100001"])
    assert "waiting for the process that computes these features" in process.stderr.readline()
    is_stopped(process, signal.SIGINT, ": saved; the same command resumes it")
    for lock in locks:
        lock.release()
    process = forked.Process(
        *meter, "engine.max_steps=1", "engine.eval_batch_size=1024"
    )  # so that throughput takes long
    until(lambda: list(tmp_path.glob("results/records/**/*.safetensors")), process)
    is_stopped(process, signal.SIGTERM, ": saved; the same command resumes it")


@pytest.mark.parametrize(
    "command",
    [["status", "mini", "--live"]],
)
def test_while_a_sweep_is_looked_at(command, tmp_path):
    process = begun([*VLTUNE, "sweep", *command, f"results_dir={tmp_path}"])
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
    status, errors = stopped(process, signal.SIGTERM)
    assert "Traceback" not in errors
    assert status in (0, 128 + signal.SIGTERM, 128 + signal.SIGINT), errors
