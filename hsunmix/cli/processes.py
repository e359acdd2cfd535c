"""Several processes for one command: started here, or by `accelerate launch -m hsunmix ...`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

from hsunmix.environment import child_environment

_WAIT = timedelta(days=2)  # a process may have to wait for the others as long as a scene takes


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the work.

    Attributes:
        rank: 0 is the main one.
        count: number of processes.
        barrier: waits for all of them.
        device: what this process computes on.
    """

    rank: int
    count: int
    barrier: Callable[[], None]
    device: str

    @property
    def is_main(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0


def in_group() -> bool:
    """Whether a launcher has started several processes of this command, this being one of them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def starts_group(count: int) -> bool:
    """Whether this process is the one that starts `count` others.

    Raises:
        ValueError: `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"--num-processes must be at least 1, got {count}")
    return count > 1 and not in_group()


def group_rank() -> tuple[int, int]:
    """Number of this process and of all, without talking to the others."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if in_group() else (0, 1)


def own_device(device: str) -> str:
    """The accelerator of this process, where several processes share the machine's accelerators."""
    if not in_group() or device != "cuda":
        return device
    import torch

    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def join_group(device: str) -> Ranks:
    """Meet the other processes; alone where there are none.

    Args:
        device: "cpu", or an accelerator, of which each process takes its own.
    """
    if not in_group():
        return Ranks(0, 1, lambda: None, device)
    if device == "cpu":
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=_WAIT)
    own = device if device == "cpu" else str(state.device)
    return Ranks(state.process_index, state.num_processes, state.wait_for_everyone, own)


def run_processes(argv: Sequence[str], count: int) -> int:
    """Run the command in several processes; where one fails, the others are stopped.

    Args:
        argv: arguments of `hsunmix`.
        count: number of processes.

    Returns:
        0, or the exit code of the first that failed.
    """
    threads = str(max(1, (os.cpu_count() or 1) // count))
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    children = []
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
        environment = {"OMP_NUM_THREADS": threads, **child_environment(**shared, **own)}
        children.append(subprocess.Popen([sys.executable, "-m", "hsunmix", *argv], env=environment))
    earlier = signal.signal(signal.SIGTERM, _stop) if threading.current_thread() is threading.main_thread() else None
    try:
        return _wait(children)
    finally:
        if earlier is not None:
            signal.signal(signal.SIGTERM, earlier)
        for child in children:
            if child.poll() is None:
                child.terminate()
        for child in children:
            child.wait()


def _stop(*_: object) -> NoReturn:
    """Turn a signal into an exception, so that the children are stopped too."""
    raise SystemExit(143)


def _wait(children: list[subprocess.Popen]) -> int:
    while True:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if failed:
            return failed[0] if failed[0] > 0 else 1  # negative: ended by a signal
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
