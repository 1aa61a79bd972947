"""A workspace's files by name, for people, rows and events: never more than a part of them.

What no version can hold of a workspace is named with the reason, one of

    pipe, socket, device   no file
    name                   git refuses the name, for what it would mean on another system (`.GIT`)
    path                   longer than LONGEST
    unreadable             its mode lets the worker not read it
    repository             a repository that began to be one just then
    submodule              a link to a commit of another repository
    refused                git did not take it: it changed while it was read, say
    remote                 the server of BATON_WORKSPACE_REMOTE refuses its content
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from worker.text.storable import plain

MOST = 200  # names of a list
MOST_LEFT_OUT = 50
ROOM = 20_000  # characters that they have together
LONGEST = 3 * 1024  # bytes of a path below the workspace


@dataclass(frozen=True, slots=True, order=True)
class LeftOut:
    """A file or directory that is no part of a version; bytes of its name that are no text are
    escaped."""

    name: str
    why: str


def first_of(names: Iterable[str], *, most: int = MOST) -> list[str]:
    """The names that come first, as many as there is room for."""
    found, room = list[str](), ROOM
    for name in map(plain, names):
        room -= len(name)
        if room < 0 or len(found) == most:
            break
        found.append(name)
    return found


def told(left: Collection[LeftOut]) -> dict[str, Any]:
    """How many there are, and the first of them by name, for an event."""
    named = first_of((each.name for each in left), most=MOST_LEFT_OUT)
    whys = (each.why for each in left)
    return {
        "count": len(left),
        "names": [{"name": name, "why": why} for name, why in zip(named, whys, strict=False)],
    }
