"""The page's side of a call: its events, each once and in order, and the configuration that it sends.

After the event that the call has ended nothing comes any more, so that is when the socket is closed. A page
that connects again is told all from the beginning.
"""

import asyncio

from config.log import log as logger
from db.live import calls
from gateway.access.limits import MESSAGES, Window
from gateway.calls import config
from gateway.calls.sides import Over, Side
from gateway.ledger import ERRORS
from gateway.voice import events
from gateway.voice.ends import leaves
from gateway.voice.events import Event
from gateway.voice.shape import Misshapen


async def serve(side: Side) -> None:
    """All of it. Never raises for what a client does."""
    await side.ws.accept()
    try:
        await side.look()
        logger.info("call.page", call=side.call)
        await side.move("waiting", "created")
        async with asyncio.TaskGroup() as group:
            group.create_task(_tell(side))
            group.create_task(_listen(side))
    except BaseExceptionGroup as several:
        await side.leave(leaves(several))
    except (Over, *ERRORS) as exc:
        await side.leave([exc])
    finally:
        logger.info("call.cleaned", call=side.call, side="page")


async def _tell(side: Side) -> None:
    seq = 0
    with side.bell.watch(side.call) as news:
        while True:
            news.clear()
            async with side.bell.pool.connection() as conn:
                found = await calls.since(conn, side.call, seq)
            for event in found:
                await side.send(events.text_of({"type": event.type, **event.body}))
                seq = event.seq
                if event.body.get("status") == "ended":
                    raise Over(1000, "The call has ended.")
            await news.wait()


async def _listen(side: Side) -> None:
    window = Window(*MESSAGES)
    while True:
        told = await side.receive()
        if wait := window.wait():
            await _put_off(side, wait)
            continue
        match told.get("type"):
            case "job.config":
                await _configure(side, told)
            case "call.end":
                await side.end("ended")
            case _:
                await _refuse(side, "unknown_event", "Say job.config or call.end.", "type")


async def _configure(side: Side, told: Event) -> None:
    """Take the configuration; what was taken before is the same for ever, so a retry is harmless."""
    version, given = told.get("version"), told.get("config")
    if isinstance(version, bool) or not isinstance(version, int) or not 0 < version < 2**31:
        await _refuse(side, "invalid_type", "version is a number from 1 on.", "version")
        return
    if not events.is_object(given):
        await _refuse(side, "invalid_type", "config is an object.", "config")
        return
    try:
        checked = config.checked(given)
    except Misshapen as exc:
        await _refuse(side, exc.code, exc.message, exc.param)
        return
    async with side.bell.pool.connection() as conn:
        taken = await calls.configure(conn, side.call, version, checked)
    logger.info("call.config", call=side.call, version=version, taken=taken)
    side.bell.ring(side.call)


async def _put_off(side: Side, wait: float) -> None:
    message = f"More than {MESSAGES[0]} messages in {MESSAGES[1]} s: send it again later."
    told = events.error("too_many_messages", message, param="type")
    told["error"]["retry_after"] = round(max(wait, 0.1), 1)
    await side.send(events.text_of(told))


async def _refuse(side: Side, code: str, message: str, param: str) -> None:
    await side.send(events.text_of(events.error(code, message, param=param)))
