"""What a new link is told first: configuration, tools, items, in that order, each confirmed.

Nothing of the client's is on its way meanwhile, so each answer is the replay's own, and none is kept again.
"""

from collections.abc import Awaitable, Callable

from config.log import log as logger
from gateway.voice import events
from gateway.voice.events import Event, part, said
from gateway.voice.link import Link, Lost

AT_ONCE = 8  # items that are on their way together
TOOLS = ("tools", "tool_choice")
Told = Callable[[str], Awaitable[None]]


def steps(config: Event | None) -> list[Event]:
    """The updates that bring a configuration about: tools, if there are any, after all else."""
    if config is None:
        return []
    session: Event = config["session"]
    if not session.get("tools"):
        return [config]
    first = {name: value for name, value in session.items() if name not in TOOLS}
    then = {name: session[name] for name in ("type", *TOOLS) if name in session}
    return [config | {"session": first}, config | {"session": then}]


async def begin(link: Link, told: Told, others: Told) -> Event:
    """The provider's `session.created`. Raises Lost where it says none."""
    text = await link.until(lambda event: event["type"] == "session.created", others)
    if text is None:
        raise Lost("the provider says nothing")
    await told(text)
    return events.read(text) or {}


async def configure(link: Link, config: Event | None, told: Told) -> None:
    """Set the configuration. Raises Lost where it is neither confirmed nor refused."""
    for step in steps(config):
        event = step | {"event_id": events.new_id()}
        await link.send(events.text_of(event))
        answer = await link.until(
            lambda got, about=event["event_id"]: (
                got["type"] == "session.updated" or _about(got) == about
            ),
            told,
        )
        if answer is None:
            raise Lost("a configuration was not confirmed")
        await told(answer)


async def recreate(link: Link, items: list[Event], told: Told, others: Told) -> None:
    """Create the items again, a few at a time. One that is refused, or not confirmed, is told to the
    log, and the conversation goes on without it."""
    for first in range(0, len(items), AT_ONCE):
        open_ones = dict[str, str]()  # item by event
        for item in items[first : first + AT_ONCE]:
            about = events.new_id()
            open_ones[about] = item["id"]
            event = {"type": "conversation.item.create", "event_id": about, "item": item}
            await link.send(events.text_of(event))
        await _confirmed(link, open_ones, told, others)


async def _confirmed(link: Link, open_ones: dict[str, str], told: Told, others: Told) -> None:
    while open_ones:
        text = await link.until(lambda got: bool(_settles(got, open_ones)), others)
        if text is None:
            logger.warning("voice.items_not_confirmed", items=len(open_ones))
            return
        got = events.read(text) or {}
        if got["type"] == "error":
            logger.warning("voice.item_refused", code=said(part(got, "error"), "code"))
        else:
            await told(text)
        del open_ones[_settles(got, open_ones)]


def _settles(event: Event, open_ones: dict[str, str]) -> str:
    """Which of the events this answers; empty: none."""
    if (about := _about(event)) in open_ones:
        return about
    if event["type"] not in ("conversation.item.added", "conversation.item.created"):
        return ""
    item = said(part(event, "item"), "id")
    return next((about for about, name in open_ones.items() if name == item), "")


def _about(event: Event) -> str:
    return said(part(event, "error"), "event_id") if event["type"] == "error" else ""
