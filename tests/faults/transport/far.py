"""A server that is far away: a proxy on loopback through which each piece of data takes its time."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

from dev.stack.processes import LOOPBACK, free_port

PIECE = 2**16  # bytes


@contextmanager
def far(port: int, *, delay: float) -> Generator[int]:
    """The port of a proxy to that loopback port; data is under way for `delay` seconds."""
    here, loop, ready = free_port(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        async with await asyncio.start_server(connect, LOOPBACK, here):
            ready.set()
            await ended.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def connect(reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(LOOPBACK, port)
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(_carry(reading, back, delay), _carry(there, writing, delay))
        for one in (back, writing):
            one.close()
            with suppress(OSError):
                await one.wait_closed()

    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(5)
    try:
        yield here
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


async def _carry(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float
) -> None:
    """All that comes, in order, each piece `delay` seconds later; then the end."""
    under_way = asyncio.Queue[tuple[float, bytes]]()
    now = asyncio.get_running_loop().time

    async def deliver() -> None:
        while True:
            due, piece = await under_way.get()
            await asyncio.sleep(max(0.0, due - now()))
            if not piece:
                break
            target.write(piece)
            await target.drain()
        target.close()

    delivering = asyncio.create_task(deliver())
    try:
        while piece := await source.read(PIECE):
            under_way.put_nowait((now() + delay, piece))
        under_way.put_nowait((now() + delay, b""))
        await delivering
    finally:
        delivering.cancel()
