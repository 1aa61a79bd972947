"""Projects for people: a list, one in detail, and the path that its session went."""

from collections.abc import Sequence
from typing import Any

from db.projects.projects import Project, Version
from worker.cli.pages.ids import Names, named, short
from worker.cli.pages.jobs import COMMAND, kind, shortened, standing
from worker.cli.pages.layout import Facts, Page, Table
from worker.text.units import NOTHING, duration, money, number, size

Row = dict[str, Any]
NEXT = {
    "first": "begins the first session",
    "fresh": "begins fresh",
    "resumes": "resumes the session",
}


def projects_page(found: Sequence[Row], names: Names, *, empty: str) -> Page:
    """Many projects, one a line."""
    columns = ("project", "user", "session", "moved at", "queued", "running", "parked")
    rows = [
        (
            p["project_id"],
            p["user_id"],
            named(p["last_ai_session_id"], names),
            p["last_ai_session_updated_at"],
            *(p[state] or None for state in ("queued", "running", "parked")),
        )
        for p in found
    ]
    return [Table(columns, rows, empty, right=frozenset(columns[4:]))]


def project_page(document: Row, names: Names) -> Page:
    """One project: whose it is, where its session stands, and what is going on."""
    project: Project = document["project"]
    version: Version | None = document["latest_version"]
    more = document["open_jobs_more"]
    return [
        Facts(
            [
                ("project", project.project_id),
                ("user", project.user_id),
                ("workspace", project.workspace or "the default: BATON_WORKSPACES/<project>"),
                ("session", project.last_ai_session_id or "none yet"),
                ("moved at", project.last_ai_session_updated_at),
                ("in step", document["sync_status"]),
                ("next turn", NEXT[document["next_turn"]]),
                ("versions", document["versions"]),
                ("latest version", version.version_id if version else None),
                ("its session", version.ai_session_id if version else None),
                ("its check", version.check_status if version else None),
                ("check", "; then ".join(document["check"] or ()) or None),
                ("moves", document["moves"]),
                ("cost", money(document["cost_usd"])),
                ("transcripts", _transcripts(document)),
                ("events", project.event_seq),
            ]
        ),
        Table(
            ("id", "kind", "lane", "state", "tries", "how it stands"),
            [
                (
                    named(j["id"], names),
                    kind(j),
                    named(j["lane"], names),
                    j["state"],
                    j["attempts"],
                    standing(j),
                )
                for j in document["open_jobs"]
            ],
            "Nothing is queued or running.",
            title="Open jobs",
            words=frozenset({"how it stands"}),
        ),
        *([f"{number(more)} more wait behind these."] if more else []),
    ]


def _transcripts(document: Row) -> str:
    return f"{document['transcripts']} with {size(document['transcript_bytes'])}"


def chain_page(document: Row, names: Names) -> Page:
    """Each move of the head, oldest first: the path that the project's session went."""
    moves: list[Row] = document["moves"]
    rows = [
        (
            number(n),
            m["created_at"],
            m["source"],
            f"{short(m['old_session_id'], names)} → {_new(m, names)}",
            f"{_origin(m, names)}{_proved(m)}",
            tokens(m),
            money(m["cost_usd"], estimated=m["cost_estimated"]),
            duration(None if m["duration_ms"] is None else m["duration_ms"] / 1000),
            named(m["version_id"], names),
        )
        for n, m in enumerate(moves, start=1)
    ]
    spent = sum((m["cost_usd"] or 0 for m in moves), start=0)
    table = Table(
        (
            "#",
            "at",
            "source",
            "old → new",
            "began",
            "new+cached→out",
            "cost",
            "took",
            "version",
        ),
        rows,
        f"Project {document['project_id']} has no session yet.",
        right=frozenset({"#", "new+cached→out", "cost", "took"}),
        words=frozenset({"began"}),
    )
    told = [f"{len(rows)} moves, {money(spent)} in all."] if rows else []
    return [table, *told, *_next(document["next"])]


def _next(job: Row | None) -> list[str]:
    if job is None:
        return []
    if job["waits"]:
        return [f"Next comes the {kind(job)} {job['id']}. It waits: {standing(job)}"]
    return [f"The {kind(job)} {job['id']} is at work: {standing(job)}."]


def _new(move: Row, names: Names) -> str:
    """The new session: whole in a pipe, since it is what people go back to."""
    one = str(move["new_session_id"])
    return names[one].short if one in names else one


def chain_sessions(moves: list[Row]) -> list[str | None]:
    """The sessions that the page of a chain names."""
    columns = ("old_session_id", "new_session_id", "parent_session_id")
    return [move[column] for move in moves for column in columns]


def _origin(move: Row, names: Names) -> str:
    """What the new session was made of, when that was not the old head."""
    old, parent = move["old_session_id"], move["parent_session_id"]
    reason = f" ({move['reason']})" if move["reason"] else ""
    if move["source"] == "operator":
        who = "taken back" if move["reason"] == "check_failed" else "moved by an operator"
        return f"{who}{reason}"
    if parent is None:
        return f"fresh{reason}"
    return f"forked{reason}" if parent == old else f"forked {short(parent, names)}{reason}"


def _proved(move: Row) -> str:
    """What the check of the move's files came to, if there was one."""
    failed = next((one for one in move["checks"] if one["outcome"] == "failed"), None)
    if failed:
        return f"; failed: {shortened(failed['command'], COMMAND)}"
    return "; its check passed" if move["checks"] else ""


def tokens(row: Row) -> str:
    """Tokens read anew, from the prompt cache, and written."""
    if row["input_tokens"] is None:
        return NOTHING
    new = row["input_tokens"] + row["cache_creation_tokens"]
    return f"{number(new)}+{number(row['cache_read_tokens'])}→{number(row['output_tokens'])}"
