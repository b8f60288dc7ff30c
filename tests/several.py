"""Work that several processes of one run do together, as a scheduler starts them."""

import multiprocessing
import os
import socket
import traceback

import torch
from lightning_fabric import Fabric

fork = multiprocessing.get_context("fork")


def processes(work, world=2, make=lambda world: Fabric(accelerator="cpu", devices=world)):
    """What `work(fabric)` gives in each of so many processes, or the type of what it raises.  make: the Fabric of one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(rank, answers):
        os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)  # makes anew the pool that was copied: autograd's threads, all at once, may find none
        try:
            answer = work(make(world))
        except BaseException as error:
            traceback.print_exc()
            answer = type(error)
        answers.put((rank, answer))

    answers = fork.Queue()
    started = [fork.Process(target=one, args=(rank, answers)) for rank in range(world)]
    for process in started:
        process.start()
    found = dict(answers.get(timeout=180) for _ in started)
    for process in started:
        process.join()
    return [found[rank] for rank in range(world)]
