"""Who speaks while voice is under fire, and what must hold of that afterwards."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from dev.standin.realtime.link import Link
from dev.standin.realtime.server import Provider
from tests.counted import count
from tests.gateways import Gateway
from tests.voices import Event, Voice, holds, voice
from tests.waiting import wait_until

POOLED = 8  # connections and tasks that the pool of Postgres may have opened meanwhile
GROWN = 24 * 1024  # kilobytes: what Python keeps for next time, not what 100 links took


async def all_speak(
    over: asyncio.Event,
    at: Gateway,
    key: str,
    names: list[str],
    strike: Coroutine[Any, Any, None],
) -> list[list[str]]:
    """All of them speak while it strikes; what each has written."""
    async with asyncio.TaskGroup() as group:
        group.create_task(strike)
        each = [
            group.create_task(speak_until(over, at, key, name, number))
            for number, name in enumerate(names)
        ]
    return [one.result() or [] for one in each]


async def speak_until(
    over: asyncio.Event, at: Gateway, key: str, name: str, number: int
) -> list[str]:
    """Configure, write, have it answered, again and again; what was written."""
    said = list[str]()
    async with voice(at, key, name) as one:
        await one.hear()
        while not over.is_set() or not said:
            said.append(f"{number}-{len(said) + 1:04d}")
            await turn(one, said[-1])
    return said


async def turn(one: Voice, wanted: str) -> None:
    await one.say("session.update", session={"type": "realtime", "instructions": wanted})
    await one.until("session.updated", lambda e: e["session"]["instructions"] == wanted)
    content = [{"type": "input_text", "text": f"say {wanted}"}]
    item = {"type": "message", "role": "user", "content": content}
    await one.say("conversation.item.create", item=item)
    await one.until("conversation.item.added", lambda e: e["item"].get("role") == "user")
    await one.say("response.create", response={"output_modalities": ["text"]})
    await one.until("response.done")


async def calm(at: Gateway, key: str, there: Provider, many: int) -> None:
    """So many conversations, and then none: what a gateway has that was once at work."""

    async def one_of_them() -> None:
        async with voice(at, key) as one:
            await one.ask("Hello")

    await asyncio.gather(*(one_of_them() for _ in range(many)))
    await quiet(there)


async def quiet(there: Provider) -> None:
    await holds(lambda: not there.open_links, "every link to be closed")


def users(items: list[Event]) -> list[str]:
    return [one["content"][0]["text"] for one in items if one.get("role") == "user"]


def left(before: tuple[int, ...], at: Gateway) -> list[str]:
    """What the gateway has more than before and keeps: the provider hears the end of a link while the
    tasks of its session are still on their way out."""
    with suppress(AssertionError):
        wait_until(lambda: not _more(before, count(at)), description="all to be gone")
    return _more(before, count(at))


def _more(before: tuple[int, ...], after: tuple[int, ...]) -> list[str]:
    allowed = (POOLED, POOLED, POOLED, GROWN)
    names = ("tasks", "descriptors", "connections", "kilobytes")
    return [
        f"{now} {name}, {then} before"
        for name, then, now, more in zip(names, before, after, allowed, strict=True)
        if now > then + more
    ]


def out_of_order(link: Link) -> list[str]:
    """The replay comes before all else of the client's: the configuration, then the items."""
    told = [e for e in link.received if not e["type"].startswith("input_audio")]
    ours = [str(e.get("event_id") or "").startswith("baton_") for e in told]
    kinds = [e["type"] for e, mine in zip(told, ours, strict=True) if mine]
    if ours != sorted(ours, reverse=True):
        return ["something of the client's comes in the middle of a replay"]
    return [] if kinds == sorted(kinds, reverse=True) else [f"a replay out of order: {kinds}"]


def older_again(links: list[Link]) -> list[str]:
    """Configurations that are older than what an earlier link of the conversation was told first."""
    newest: dict[str, str] = {}
    wrong = list[str]()
    for link in links:
        updates = [e["session"] for e in link.received if e["type"] == "session.update"]
        told = [session["instructions"] for session in updates]
        if not told:
            continue
        number = told[0].partition("-")[0]
        if told != sorted(told) or told[0] < newest.get(number, ""):
            wrong.append(f"{told} after {newest.get(number)}")
        newest[number] = told[0]
    return wrong
