"""The egress proxy in a thread of the test's own process, with its settings as they are now."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager

from egress.server import running

SETTLED = 0.02  # seconds


@contextmanager
def proxy() -> Generator[None]:
    """It listens inside the block."""
    loop = asyncio.new_event_loop()
    stop, ready = asyncio.Event(), threading.Event()
    failed = list[BaseException]()

    async def serve() -> None:
        async with running():
            ready.set()
            await stop.wait()

    async def settle() -> None:
        """What was just being accepted as it ended is closed too: a process's end would do that."""
        await asyncio.sleep(SETTLED)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(SETTLED)

    def work() -> None:
        try:
            loop.run_until_complete(serve())
            loop.run_until_complete(settle())
        except BaseException as exc:
            failed.append(exc)
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=work, name="egress", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        if not failed:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        if failed:
            raise failed[0]
