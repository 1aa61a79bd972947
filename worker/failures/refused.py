"""Refusals as Python raises them: one class for each code of docs/jobs.md.

try:
    enqueue(conn, Build(…, busy="reject"))
except Busy:
    …                           # or: except Refused as why: why.code, why.field, str(why)
"""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from typing import ClassVar

import psycopg

from db.core.codes import Refusal, refusal
from worker.failures.errors import BadRequest


class Refused(BadRequest):
    """The request cannot be taken; the text says why and what to do. Nothing was written.

    `code` names the reason, `field` what of the request it is about, `again_at` when to ask again.
    """

    code: ClassVar[str] = "refused"

    def __init__(
        self, sentence: str, *, field: str | None = None, again_at: datetime | None = None
    ) -> None:
        super().__init__(sentence)
        self.field = field
        self.again_at = again_at


class BadInput(Refused):
    """A field is not as it must be."""

    code = "bad_input"


class PromptTooLong(Refused):
    """The prompt is longer than BATON_PROMPT_LIMIT."""

    code = "prompt_too_long"


class Busy(Refused):
    """The project has work, and the request said `busy="reject"`."""

    code = "busy"


class KeyConflict(Refused):
    """The key or the id was used for another request."""

    code = "key_conflict"


class UnknownProject(Refused):
    """There is no such project of this user, and this kind of job does not begin one."""

    code = "unknown_project"


class ProjectUnavailable(Refused):
    """No project of this user can begin under this id."""

    code = "project_unavailable"


class BeingDeleted(Refused):
    """The project is being deleted."""

    code = "being_deleted"


class TooManyRequests(Refused):
    """The user has asked for BATON_USER_RATE jobs within a minute; `again_at` says how long."""

    code = "too_many_requests"


class BadWorkspace(Refused):
    """The directory cannot be the project's workspace."""

    code = "bad_workspace"


class BadTemplate(Refused):
    """There is no such template, or the project has begun already."""

    code = "bad_template"


class BadBranch(Refused):
    """No branch can begin from this session, or go on."""

    code = "bad_branch"


class BadVersion(Refused):
    """No version of this id can be made."""

    code = "bad_version"


class WrongIsolation(Refused):
    """The transaction does not see what others commit."""

    code = "wrong_isolation"


class BadCallback(Refused):
    """No webhook may go to this address."""

    code = "bad_callback"


class WrongUser(Refused):
    """The connection is a producer's, and not for this user: see `speak_for`."""

    code = "wrong_user"


class NotMigrated(Refused):
    """The database does not have Baton's tables as this release needs them."""

    code = "not_migrated"


KINDS = {kind.code: kind for kind in Refused.__subclasses__()}


def as_refused(why: Refusal) -> Refused:
    """The exception for a refusal of Postgres'."""
    kind = KINDS.get(why.code, Refused)
    return kind(why.sentence, field=why.field, again_at=why.again_at)


@contextmanager
def refusing() -> Generator[None]:
    """What Postgres refuses in this block is raised as Refused."""
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction) as exc:
        raise NotMigrated(
            "This database does not have Baton's tables: run `baton migrate` first."
        ) from exc
    except psycopg.Error as exc:
        if why := refusal(exc):
            raise as_refused(why) from exc
        raise
