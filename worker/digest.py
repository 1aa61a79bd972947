"""What a fresh session is told of the past, and what is noted of the files for that.

Where the workspace is at hand its files are looked at; on a host that lacks them, what
Postgres has noted of the newest version's has to do.
"""

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
        past = chat.past(conn, job.project_id, lane=job.lane)
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


def note(job: Claimed, begun: Begun | None, session: str) -> None:
    """Note the files that a committed turn has left, for a fresh session on any host."""
    if begun is None or job.version_id is None:
        return
    files, documentation = (
        workspace.files(begun.path),
        workspace.read(begun.path, DOCUMENTATION),
    )
    with connection() as conn:
        chat.note_files(
            conn,
            job.project_id,
            version=job.version_id,
            session=session,
            files=files,
            documentation=documentation,
        )
