"""How a session ends, and who it is that speaks: a WebSocket, or a telephone."""

from typing import Protocol, cast

from config.log import log as logger
from gateway.voice import events
from gateway.voice.events import Event, part, said


class Gone(Exception):
    """The client has left."""


class Ended(Exception):
    """The session is over: the code and the reason that the client's socket is closed with."""

    def __init__(self, code: int, reason: str, event: Event | None = None) -> None:
        super().__init__(reason)
        self.code, self.reason, self.event = code, reason, event


class Client(Protocol):
    """Who speaks: a WebSocket, or a telephone."""

    async def receive(self) -> str:
        """What it says next. Raises Gone."""
        ...

    async def send(self, text: str) -> None:
        """Tell it; nothing happens where it has left. Raises Ended where it does not listen."""
        ...


def no_credits() -> Ended:
    """The account has nothing left."""
    message = "The account has no tokens left: give it more, then connect again."
    return Ended(4402, message, events.error("no_credits", message, kind="insufficient_quota"))


def raise_if_fatal(event: Event) -> None:
    if said(part(event, "error"), "code") in events.FATAL:
        raise Ended(4502, "The provider refuses this.")


def leaves(several: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions of a group, and of the groups in it."""
    found = list[BaseException]()
    for one in several.exceptions:
        if isinstance(one, BaseExceptionGroup):
            found += leaves(cast("BaseExceptionGroup[BaseException]", one))
        else:
            found.append(one)
    return found


def reason(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """Why a group of tasks ended: the first reason; what is none of ours is a fault of ours."""
    for one in leaves(several):
        if isinstance(one, Ended):
            return one
    logger.error("voice.failed", exc_info=several)
    return Ended(1011, "Something is wrong here: it is in the log.")
