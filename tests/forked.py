"""`python ...` without the seconds that its imports take: a copy of a process that has imported the libraries, and nothing
of vltune's, which every command imports anew."""

import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARIES = ("hydra.main", "joblib", "jsonschema_rs", "lightning_fabric", "PIL.Image", "pyarrow.parquet", "pydantic")
LIBRARIES += ("rich.table", "safetensors.torch", "scipy.stats", "simplejpeg", "tokenizers", "torch._dynamo", "tqdm")
LIBRARIES += (
    "typer",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "peft",
)


@cache
def server():
    """A connection to a process of this file; the libraries have nothing to say on a user's screen."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with its, tempfile.TemporaryFile("w+") as told:
        subprocess.Popen([sys.executable, __file__], cwd=ROOT, env=environment, stdin=its, stdout=told, stderr=told)
        its.close()
        assert ours.recv(16) == b"ready" and not os.fstat(told.fileno()).st_size, told.seek(0) or told.read()
    return ours


class Process:
    """As a subprocess.Popen of python with these arguments, in a group of its own."""

    def __init__(self, *arguments, cwd=ROOT, env=None):
        self.args, self.returncode = [*map(str, arguments)], None
        self.told = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        reader, writer = os.pipe()
        self.status = open(reader)  # noqa: SIM115, PTH123
        request = json.dumps([self.args, str(cwd), dict(os.environ if env is None else env)])
        socket.send_fds(server(), [request.encode()], [*(file.fileno() for file in self.told), writer])
        os.close(writer)
        self.pid = int(self.status.readline())

    def poll(self):
        if self.returncode is None and select.select([self.status], [], [], 0)[0]:
            self.returncode = int(self.status.readline())
        return self.returncode

    def communicate(self, timeout=None):
        if self.returncode is None and not select.select([self.status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        self.poll()
        return tuple(file.seek(0) or file.read() for file in self.told)

    def send_signal(self, signum):
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run(*arguments, timeout=300, **how):
    """As subprocess.run."""
    process = Process(*arguments, **how)
    try:
        told = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, *told)


def serve(connection):
    """Each copy has a process beside it that tells its number and then its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    connection.send(b"ready")
    while True:
        request, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
        if not request:
            return
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.close()
            watch(*json.loads(request), *files)
            os._exit(0)
        for file in files:
            os.close(file)


def watch(arguments, folder, environment, out, errors, status):
    copy = multiprocessing.get_context("fork").Process(
        target=execute, args=(arguments, folder, environment, out, errors)
    )
    copy.start()
    os.write(status, f"{copy.pid}\n".encode())
    copy.join()
    os.write(status, f"{copy.exitcode}\n".encode())


def execute(arguments, folder, environment, *told):
    os.setsid()
    for number, file in enumerate(told, 1):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    what, sys.path[0] = arguments[0], folder
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = arguments if what not in ("-m", "-c") else arguments[1:]
    if what == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv[0], code = what, sys.argv[0]
        exec(code, {"__name__": "__main__"})
    else:
        sys.path[0] = str(Path(what).resolve().parent)
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    with socket.socket(fileno=0) as listening:
        serve(listening)
