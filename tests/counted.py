"""A gateway that can be counted: `python -m tests.counted` writes into the file COUNTED, at each SIGUSR1,
how many tasks its event loop has. What else it has is for `/proc` to tell."""

import asyncio
import os
import signal
from pathlib import Path
from types import FrameType

import psutil

from gateway.__main__ import main
from tests.gateways import Gateway
from tests.waiting import wait_until


def tell(_number: int, _frame: FrameType | None) -> None:
    """Called between two steps of the loop, in its thread."""
    told = Path(os.environ["COUNTED"])
    new = told.with_suffix(".new")
    new.write_text(str(len(asyncio.all_tasks())))
    new.replace(told)


def count(one: Gateway) -> tuple[int, int, int, int]:
    """Its tasks, descriptors, connections and kilobytes of its own."""
    told = one.log.with_name("counted")
    told.unlink(missing_ok=True)
    one.process.send_signal(signal.SIGUSR1)
    tasks = wait_until(
        lambda: told.read_text() if told.exists() else "", description="the gateway to count"
    )
    process = psutil.Process(one.process.pid)
    memory = process.memory_full_info().uss // 1024
    return int(tasks), process.num_fds(), len(process.net_connections("tcp")), memory


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, tell)
    main()
