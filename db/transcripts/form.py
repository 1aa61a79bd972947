"""The form of transcript entries: what lasts, what a fork changes, and how each leads to the next.

    entry    {"uuid": U, "sessionId": S, "message": …}
    body     {"message": …, "uuid": U}              kept once per project, by its digest
    overlay  {"sessionId": [[count, S], …]}         kept per append, run-length coded

Pure functions; db/transcripts/appends.py keeps what they make.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

Entry = dict[str, Any]

# What a fork of the CLI changes in the entries it copies; all at the top level.
# Anything else that differs makes another body, which is correct and costs its size.
VOLATILE = ("sessionId", "promptId", "requestSessionId", "slug")

LEVEL = 6  # of zlib: 1 is twice as quick and a fifth larger

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Body:
    """The lasting part of one entry, as JSON in ASCII."""

    json: bytes
    digest: bytes
    uuid: UUID | None  # what makes the entry the same entry again


def body(entry: Entry) -> Body:
    """Only the top level is sorted (the CLI reorders it when it copies an entry); below
    it order stays: it is sent to the model, whose prompt cache compares bytes."""
    lasting = {name: entry[name] for name in sorted(entry) if name not in VOLATILE}
    text = _encode(lasting).encode()
    return Body(text, _digest(text), _uuid(entry.get("uuid")))


def compress(found: Body) -> bytes:
    return zlib.compress(found.json, LEVEL)


def overlay(entries: list[Entry]) -> bytes:
    """The volatile fields of a batch, compressed. Absent, null and a value stay apart."""
    columns = {name: _runs(entries, name) for name in VOLATILE}
    return _pack({name: runs for name, runs in columns.items() if runs})


def joined(parts: list[tuple[bytes, int]]) -> bytes:
    """One overlay for what was several batches, each given as its overlay and its entries."""
    columns = [(_unpack(packed), count) for packed, count in parts]
    names = dict.fromkeys(name for column, _ in columns for name in column)
    return _pack(
        {
            name: [run for column, count in columns for run in column.get(name, [[count]])]
            for name in names
        }
    )


def restore(bodies: Iterable[bytes], volatile: bytes) -> list[Entry]:
    """The entries of a batch. Raises zlib.error or ValueError if they are damaged."""
    entries: list[Entry] = [json.loads(zlib.decompress(packed)) for packed in bodies]
    for name, runs in _unpack(volatile).items():
        _lay_over(entries, name, runs)
    return entries


def batch_digest(bodies: list[Body], volatile: bytes) -> bytes:
    """The same for the same entries in the same order, and for nothing else."""
    return _digest(b"".join(found.digest for found in bodies) + volatile)


def runs_of(ids: list[int]) -> tuple[list[int], list[int]]:
    """`[7, 8, 9, 3]` is `[7, 3]` and `[3, 1]`: where consecutive runs begin, how long they are."""
    starts, lengths = list[int](), list[int]()
    for number in ids:
        if starts and number == starts[-1] + lengths[-1]:
            lengths[-1] += 1
        else:
            starts.append(number)
            lengths.append(1)
    return starts, lengths


def soundness(entries: list[Entry]) -> str | None:
    """None when the session can be resumed and keeps its context; else why not.

    `empty`: no message of user or assistant, so the CLI would not find it.
    `broken_chain`: the way back from the last message ends at an entry that is not
    there; the CLI would resume, and silently leave out all that lies before the gap.
    (A compaction begins a chain of its own: its boundary has no parent, which is sound.)
    """
    if not any(map(_is_message, entries)):
        return "empty"
    _, whole = _chain(entries)
    return None if whole else "broken_chain"


def since_gap(entries: list[Entry]) -> tuple[list[Entry], int] | None:
    """A broken chain that the CLI itself has broken, mended: it begins at the gap.

    A compaction may name as the parent of what follows it an entry that was never written; the
    CLI then goes on with what lies behind the gap. Returns the entries, and how many messages
    before the gap it no longer knows. None where no compaction explains the gap.
    """
    chain, whole = _chain(entries)
    if whole or not chain:
        return None
    first = next(n for n, entry in enumerate(entries) if entry is chain[-1])
    lost = str(chain[-1].get("parentUuid")) not in {str(entry.get("uuid")) for entry in entries}
    compacted = any(e.get("subtype") == "compact_boundary" for e in entries[: first + 1])
    if not (lost and compacted):
        return None
    begun = [*entries[:first], {**entries[first], "parentUuid": None}, *entries[first + 1 :]]
    return begun, sum(map(_is_message, entries[:first]))


def _chain(entries: list[Entry]) -> tuple[list[Entry], bool]:
    """The way back from the last message, and whether it comes to a beginning."""
    by_uuid = {entry["uuid"]: entry for entry in entries if isinstance(entry.get("uuid"), str)}
    at = next((entry for entry in reversed(entries) if _is_message(entry)), None)
    chain, seen = list[Entry](), set[str]()
    while at is not None and str(at["uuid"]) not in seen:
        chain.append(at)
        seen.add(str(at["uuid"]))
        parent = at.get("parentUuid")
        if parent is None:
            return chain, True
        at = by_uuid.get(str(parent))
    return chain, False


def _pack(columns: dict[str, list[list[Any]]]) -> bytes:
    return zlib.compress(_encode(columns).encode())


def _unpack(packed: bytes) -> dict[str, list[list[Any]]]:
    return json.loads(zlib.decompress(packed))


def _runs(entries: list[Entry], name: str) -> list[list[Any]]:
    """[] when no entry has the field. Runs are compared as JSON: 1, 1.0 and true differ."""
    if not any(name in entry for entry in entries):
        return []
    coded = (_encode(entry[name]) if name in entry else None for entry in entries)
    groups = ((value, sum(1 for _ in same)) for value, same in groupby(coded))
    return [[count] if value is None else [count, json.loads(value)] for value, count in groups]


def _lay_over(entries: list[Entry], name: str, runs: list[list[Any]]) -> None:
    begin = 0
    for count, *value in runs:
        for entry in entries[begin : begin + count] if value else ():
            entry[name] = value[0]
        begin += count
    if begin != len(entries):
        raise ValueError(f"{name} is told of {begin} entries, and there are {len(entries)}")


def _uuid(value: object) -> UUID | None:
    if not isinstance(value, str):
        return None
    try:
        return UUID(value) if len(value) == 36 else UUID(bytes=_digest(_bytes(value)))
    except ValueError:
        return UUID(bytes=_digest(_bytes(value)))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


def _is_message(entry: Entry) -> bool:
    return (
        entry.get("type") in ("user", "assistant")
        and isinstance(entry.get("uuid"), str)
        and entry.get("isSidechain") is not True
    )
