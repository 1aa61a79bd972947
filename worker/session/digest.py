"""What a fresh session is told of the past, and what is noted of the files for that.

The past is told from where it is: the chat, and for what was said before there was chat of it
the transcripts (of imported sessions, of a template's).

Where the workspace is at hand its files are looked at; on a host that lacks them, what the
commit of the line's newest turn has noted of them has to do.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from psycopg import Connection

from db.core.pool import connection
from db.jobs.attempts import Claimed
from db.jobs.lanes import MAIN
from db.sessions import chat, registry
from db.sessions.chat import Past
from db.transcripts import transcripts
from db.transcripts.transcripts import TranscriptDamaged
from worker.session import prompts
from worker.session.conversation import Said, said
from worker.workspace import reading
from worker.workspace.workspace import AsFound

DOCUMENTATION = "DOCUMENTATION.md"


def retell(job: Claimed, cwd: Path, prompt: str) -> str:
    """The prompt of a fresh session: what is known of the past, then the prompt itself."""
    with connection() as conn:
        past = _past(conn, job)
    if job.head is None and not past.said:
        return prompt  # the project's first words
    files = reading.files(cwd)
    noted = not files
    told = prompts.digest(
        past,
        past.files if noted else files,
        past.documentation if noted else reading.text(cwd / DOCUMENTATION),
        elsewhere=noted,
    )
    return prompts.with_digest(told, prompt)


def _past(conn: Connection, job: Claimed) -> Past:
    past = chat.past(conn, job.project_id, lane=job.lane, head=job.head, user_id=job.user_id)
    if job.head is None and (name := job.args.get("template")):
        return _of_template(conn, str(name), past)
    words = dict.fromkeys(w for each in past.untold for w in _words(conn, job, each))
    known = set(past.said)
    told = [
        *(Said(role, text, at) for (role, text), at in zip(past.said, past.at, strict=True)),
        *(word for word in words if (word.role, word.text) not in known),
    ]
    newest = sorted(told, key=lambda one: one.at)[-chat.MESSAGES :]
    return replace(past, said=[(one.role, one.text) for one in newest])


def _of_template(conn: Connection, name: str, past: Past) -> Past:
    """What was said in the template that the project was to begin from: it is no user's."""
    found = registry.template(conn, name, whole=False)
    if found is None:
        return past  # there is none, or none of that name is a template
    theirs = chat.past(conn, name, lane=MAIN, head=found, user_id=registry.TEMPLATES)
    return replace(past, summary=theirs.summary, said=[*theirs.said, *past.said])


def _words(conn: Connection, job: Claimed, session: str) -> list[Said]:
    try:
        return said(transcripts.load(conn, job.project_id, session) or [])
    except TranscriptDamaged:
        return []  # it may be why a fresh one begins


@dataclass(frozen=True, slots=True)
class Noted:
    """The files that a turn has left, by name, and the beginning of the documentation."""

    files: list[str]
    documentation: str


def note(begun: AsFound) -> Noted:
    """What the turn's commit is to note, for a fresh session on any host."""
    return Noted(reading.files(begun.path), reading.text(begun.path / DOCUMENTATION))
