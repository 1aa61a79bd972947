"""Faults on cue: what goes wrong at which event.

provider.cue("close", on="response.create", code=1001)      close when it comes
provider.cue("error", on="answer", code="session_expired", close=1001)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["close", "cut", "error", "refuse", "hang", "slow", "status"]
KINDS: tuple[Kind, ...] = ("close", "cut", "error", "refuse", "hang", "slow", "status")


@dataclass(slots=True)
class Cue:
    """`on` is `connect`, `created`, the type of an event that comes, or `answer`: in the middle of one.

    close   the socket is closed with `code`
    cut     it is cut without a word (1006)
    error   an `error` with `code` as its own; then closed with `close`, if that is given
    refuse  an `error` invalid_value about `param`
    hang    no answer
    slow    `seconds` pass first
    status  the connection is refused with HTTP status `code` (on connect)
    """

    kind: Kind
    on: str = "connect"
    times: int = 1
    code: int | str = 1001
    close: int | None = None
    param: str = ""
    seconds: float = 0.0
    message: str = "It went wrong as it was told to."


@dataclass(slots=True)
class Cues:
    """Those to come."""

    waiting: list[Cue] = field(default_factory=list[Cue])

    def at(self, moment: str, *kinds: Kind) -> Iterator[Cue]:
        """What goes wrong now, each as often as it was told to."""
        for cue in [one for one in self.waiting if one.on == moment]:
            if not kinds or cue.kind in kinds:
                cue.times -= 1
                if cue.times <= 0:
                    self.waiting.remove(cue)
                yield cue
