"""Sessions as the CLI keeps them on disk, read and checked, to be taken into a project.

projects/-srv-shop/
    7c4ffbd6-….jsonl                        the session, an entry a line
    7c4ffbd6-…/subagents/agent-a1b2.jsonl   its sub-agents, and what is known of each
                         agent-a1b2.meta.json
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from psycopg import Connection

from config.log import log
from db.sessions import imports
from db.sessions.imports import Figures
from db.transcripts.form import Entry, since_gap, soundness
from worker.agent.usage import context
from worker.failures.failed import Failed
from worker.failures.refused import refusing
from worker.session.ladder import UUID_FORM, summary_of

LARGEST = 200 * 2**20  # bytes of one file; the CLI itself is slow long before
UNSOUND = {
    "empty": "has no message of user or agent, so there is nothing to go on from",
    "broken_chain": "lacks a message that a later one answers: find a whole copy of it",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A session that was read and found sound; its sub-agents by subpath, itself under ''.

    `forgotten`: messages before a gap that a compaction of the CLI's left in it; it goes on
    from behind the gap.
    """

    figures: Figures
    transcripts: dict[str, list[Entry]]
    forgotten: int = 0

    @property
    def entries(self) -> int:
        return len(self.transcripts[""])


def import_session(
    conn: Connection,
    project_id: str,
    path: Path,
    *,
    user_id: str,
    session: str | None,
    head: bool,
) -> tuple[Recorded, bool]:
    """Import the session of that file, and say whether it is the project's head now.

    Raises Failed, HeadHeld or Refused with a sentence, and nothing is written then.
    """
    found = read(path, session)
    from worker.agent.store import summarise  # slow to import: once there is something

    fold = summarise(found.figures.session_id)
    with refusing():
        is_head = imports.add_session(
            conn,
            project_id,
            found.figures,
            found.transcripts,
            user_id=user_id,
            head=head,
            fold=fold,
        )
    return found, is_head


def read(path: Path, session: str | None = None) -> Recorded:
    """The session of the file, whose name is its id unless that is given. Raises Failed."""
    session = (session or path.stem).lower()
    if not UUID_FORM.fullmatch(session):
        raise Failed(f"{path.name} is not named after a session: give its id with --session.")
    entries = _entries(path, session)
    forgotten = 0
    if problem := soundness(entries):
        if (taken := since_gap(entries)) is None:
            raise Failed(f"The session in {path} {UNSOUND[problem]}.")
        entries, forgotten = taken
    agents = path.with_suffix("")
    found = {"": entries} | {
        file.relative_to(agents).with_suffix("").as_posix(): _sub_agent(file, session)
        for file in sorted(agents.glob("subagents/**/*.jsonl"))
    }
    try:
        return Recorded(_figures(session, entries), found, forgotten)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise Failed(f"{path} is not in the form that the CLI writes ({exc!r}).") from exc


def _sub_agent(file: Path, session: str) -> list[Entry]:
    entries = _entries(file, session)
    noted = file.with_suffix(".meta.json")
    if noted.is_file():
        if (known := _object(noted.read_bytes())) is None:
            raise _no_object(noted, 1)
        entries.append({**known, "type": "agent_metadata"})
    return entries


def _entries(path: Path, session: str) -> list[Entry]:
    if not path.is_file():
        raise Failed(f"There is no file {path}: name a session's .jsonl file.")
    if (there := path.stat().st_size) > LARGEST:
        raise Failed(f"{path} has {there} bytes, and {LARGEST} is the limit: compact it first.")
    entries = list[Entry]()
    written = path.read_bytes()
    lines = written.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        entry = _object(line)
        if entry is None and 1 < number == len(lines) and not written.endswith(b"\n"):
            log.warning("import.half_line_left_out", file=str(path), line=number)
            break  # the CLI was killed while it wrote; it leaves such a line out too
        if entry is None:
            raise _no_object(path, number)
        if (entry.get("sessionId") or session) != session:
            raise Failed(
                f"Line {number} of {path} is of session {entry['sessionId']}, and not of {session}."
            )
        entries.append(entry)
    return entries


def _object(line: bytes) -> Entry | None:
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast(Entry, found) if isinstance(found, dict) else None


def _no_object(path: Path, number: int) -> Failed:
    return Failed(f"Line {number} of {path} is no JSON object: it is no transcript of the CLI.")


def _figures(session: str, entries: list[Entry]) -> Figures:
    since = _since_compaction(entries)
    answers = [e for e in since if e.get("type") == "assistant" and _of_the_model(e)]
    last = answers[-1] if answers else {}
    costs = [e.get("totalCostUSD") for e in entries if e.get("type") == "cost-state"]
    times = [e["timestamp"] for e in entries if isinstance(e.get("timestamp"), str)]
    return Figures(
        session_id=session,
        began_at=_time(times[0]) if times else None,
        context_tokens=context(last["message"].get("usage")) if last else 0,
        raw_cost_usd=float(costs[-1] or 0) if costs else 0.0,
        turns=len({e["promptId"] for e in since if e.get("type") == "user" and "promptId" in e})
        or 1,
        model=last["message"].get("model") if last else None,
        cli_version=next((e["version"] for e in reversed(entries) if "version" in e), None),
        summary=summary_of(entries),
    )


def _since_compaction(entries: list[Entry]) -> list[Entry]:
    at = [n for n, e in enumerate(entries) if e.get("subtype") == "compact_boundary"]
    return entries[at[-1] :] if at else entries


def _of_the_model(entry: Entry) -> bool:
    return (
        entry.get("isSidechain") is not True and entry["message"].get("model") != "<synthetic>"
    )


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
