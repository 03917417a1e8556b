"""Run as one of several real processes by the fixture `on_ranks`: call a function, keep its result.

Not a test. `runpy` runs it with `rank`, `world`, `port`, `target` (file, function), `arguments` and `folder`.
"""

import importlib.util
import os
import pickle
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist

from pipeline.ranks import Ranks


def load(path, name):
    spec = importlib.util.spec_from_file_location("tests_on_ranks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def main(rank, world, port, target, arguments, folder):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    try:
        dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(seconds=60))
        result = load(*target)(Ranks(rank, world), *arguments)
        with open(f"{folder}/{rank}.result", "wb") as file:
            pickle.dump(result, file)
        dist.barrier()
    except BaseException:
        with open(f"{folder}/{rank}.error", "w") as file:
            file.write(traceback.format_exc())
        os._exit(1)  # without waiting for the others, which the fixture ends
    dist.destroy_process_group()


main(rank, world, port, target, arguments, folder)  # noqa: F821
