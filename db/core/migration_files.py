"""What a migration file is, and what it says of how it is applied.

    -- Why it is there.
    -- was: 5f3c…                        the digest of an older text that came to the same
    alter table …;                       what comes first is one transaction
    -- step: in batches of 1000 rows of session_transitions by id
    update … where t.id between :first and :last;
    -- step: by itself
    create index concurrently if not exists …;

`-- when: after the functions` in a file puts it behind them and all other files: what takes away
something that those who still work on the older schema go by.

Steps are done in their order, each once. A step "in a transaction" is done or not. One "in
batches" is a statement for the rows between two keys, committed each time: done again it must
change nothing. One "by itself" is a single statement that Postgres takes outside of a
transaction only.

A file that a database has seen stays as it is. One that is written anew, so that others can
work meanwhile, names the digests of its older texts: where one of them was applied it is not
applied again.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["in a transaction", "in batches", "by itself"]

STEP = re.compile(r"^-- step: (?P<how>.+)\n", re.MULTILINE)
BATCHES = re.compile(r"in batches of (?P<size>\d+) rows of (?P<table>\w+) by (?P<key>\w+)")
LATE = re.compile(r"^-- when: after the functions$", re.MULTILINE)
WAS = re.compile(r"^-- was: (?P<digest>[0-9a-f]{64})$", re.MULTILINE)
INDEX = re.compile(r"create\s+(?:unique\s+)?index\s+concurrently\s+if\s+not\s+exists\s+(\w+)")


@dataclass(frozen=True, slots=True)
class Walk:
    """Which rows a step goes through: `size` of the table at a time, in the order of the key."""

    size: int
    table: str
    key: str


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a file that is applied in one way."""

    kind: Kind
    text: str
    walk: Walk | None = None

    @property
    def index(self) -> str | None:
        """The index that a step by itself builds, if it builds one."""
        found = INDEX.search(self.text)
        return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Migration:
    """A file: `digests` are those of its text and of the older ones that came to the same; `late`:
    it comes after the functions."""

    name: str
    digests: tuple[str, ...]
    steps: tuple[Step, ...]
    late: bool = False


def read(folder: Path) -> list[Migration]:
    """The migrations of a folder, in order. Raises ValueError for a step of no known kind."""
    return [parse(file.name, file.read_text()) for file in sorted(folder.glob("*.sql"))]


def parse(name: str, text: str) -> Migration:
    """What the text of a file says."""
    first, *more = STEP.split(text)
    steps = [Step("in a transaction", first)] if _says_something(first) or not more else []
    steps += [_step(name, how, part) for how, part in zip(more[::2], more[1::2], strict=True)]
    digests = (digest(text), *WAS.findall(text))
    return Migration(name, digests, tuple(steps), bool(LATE.search(text)))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _says_something(text: str) -> bool:
    return any(line.strip() and not line.startswith("--") for line in text.splitlines())


def _step(name: str, how: str, text: str) -> Step:
    if found := BATCHES.fullmatch(how):
        walk = Walk(int(found["size"]), found["table"], found["key"])
        return Step("in batches", text, walk)
    match how:
        case "in a transaction" | "by itself":
            return Step(how, text)
        case _:
            raise ValueError(f"{name} has a step that is done in no known way: {how}")
