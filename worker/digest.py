"""What a fresh session is told of the past, and what is noted of the files for that.

Where the workspace is at hand its files are looked at; on a host that lacks them, what the
commit of the line's newest turn has noted of them has to do.
"""

from dataclasses import dataclass
from pathlib import Path

from db import chat
from db.attempts import Claimed
from db.pool import connection
from worker import prompts, workspace
from worker.workspace import Begun

DOCUMENTATION = "DOCUMENTATION.md"


def retell(job: Claimed, cwd: Path, prompt: str) -> str:
    """The prompt of a fresh session: what is known of the past, then the prompt itself."""
    with connection() as conn:
        past = chat.past(
            conn, job.project_id, lane=job.lane, head=job.head, user_id=job.user_id
        )
    if job.head is None and not past.said:
        return prompt  # the project's first words
    files = workspace.files(cwd)
    noted = not files
    told = prompts.digest(
        past,
        past.files if noted else files,
        past.documentation if noted else workspace.read(cwd, DOCUMENTATION),
        elsewhere=noted,
    )
    return prompts.with_digest(told, prompt)


@dataclass(frozen=True, slots=True)
class Noted:
    """The files that a turn has left, by name, and the beginning of the documentation."""

    files: list[str]
    documentation: str


def note(begun: Begun) -> Noted:
    """What the turn's commit is to note, for a fresh session on any host."""
    return Noted(workspace.files(begun.path), workspace.read(begun.path, DOCUMENTATION))
