"""What Baton's functions in Postgres refuse, as programs read it.

Every refusal has an SQLSTATE of class BA; `CODES` gives each its name, which is the same at every
door. db/functions/requests.sql has them for SQL, docs/jobs.md the table with their meanings.
"""

from dataclasses import dataclass
from datetime import datetime

import psycopg

CLASS = "BA"
CODES = {
    "BA001": "bad_input",
    "BA002": "prompt_too_long",
    "BA003": "busy",
    "BA004": "key_conflict",
    "BA005": "unknown_project",
    "BA006": "project_unavailable",
    "BA007": "being_deleted",
    "BA008": "too_many_requests",
    "BA009": "bad_workspace",
    "BA010": "bad_template",
    "BA011": "bad_branch",
    "BA012": "bad_version",
    "BA013": "wrong_isolation",
    "BA014": "bad_callback",
    "BA015": "wrong_user",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not taken: a code, one sentence, the field it is about if it is about one,
    and for `too_many_requests` when to ask again."""

    code: str
    sentence: str
    field: str | None = None
    again_at: datetime | None = None


def refusal(exc: BaseException) -> Refusal | None:
    """What was refused, if that is what the error says."""
    state = exc.sqlstate if isinstance(exc, psycopg.Error) else None
    if not isinstance(exc, psycopg.Error) or not state or not state.startswith(CLASS):
        return None
    again_at = exc.diag.message_detail
    return Refusal(
        CODES.get(state, "refused"),
        exc.diag.message_primary or "The request was refused.",
        exc.diag.column_name or None,
        datetime.fromisoformat(again_at) if again_at else None,
    )
