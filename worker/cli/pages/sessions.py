"""A session for people."""

from typing import Any

from worker.cli.pages.ids import Names, named
from worker.cli.pages.layout import Facts, Page, Table
from worker.cli.pages.projects import tokens
from worker.text.units import NOTHING, money, number, size

Row = dict[str, Any]


def session_page(document: Row, names: Names) -> Page:
    """One session: the registry's row, its transcript, and each try to resume it."""
    row: Row = document["registry"]
    spent = money(row["cost_usd"], estimated=row["cost_estimated"])
    return [
        Facts(
            [
                ("session", row["session_id"]),
                ("project", row["project_id"]),
                ("user", row["user_id"]),
                ("head", row["is_head"]),
                ("status", row["status"]),
                ("resumable", row["is_resumable"]),
                ("resume failures", row["resume_failure_count"]),
                ("stale since", row["stale_at"]),
                ("in the store", document["in_store"]),
                ("sound", "yes" if document["sound"] else f"no: {document['problem']}"),
                ("entries", document["entries"]),
                ("transcript", size(document["bytes"])),
                ("forked from", row["parent_session_id"] or "none: it began fresh"),
                ("made by", f"{row['step'] or NOTHING} of job {row['job_id'] or NOTHING}"),
                ("version", row["version_id"]),
                ("created at", row["created_at"]),
                ("last used at", row["last_used_at"]),
                ("new+cached→out", tokens(row)),
                ("context", f"{number(row['context_tokens'])} tokens"),
                ("cost", spent),
                ("model", row["model"]),
                ("CLI", row["cli_version"]),
            ]
        ),
        Table(
            ("at", "job", "step", "outcome", "reason"),
            [
                (r["at"], named(r["job_id"], names), r["step"], r["outcome"], r["reason"])
                for r in document["resume_attempts"]
            ],
            "Nobody has tried to resume it.",
            title="Resume attempts",
        ),
    ]
