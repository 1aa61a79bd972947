"""`baton report health`: what runs, what waits, what it takes, and what stands in its way."""

from dataclasses import asdict
from datetime import datetime

from psycopg import Connection

from config.settings import settings
from db import beats, census, limits, messages, receipts, reports, workers
from db.reports import Row
from worker.figures import Report
from worker.screen import Facts, Page, Table, duration, number, size

AGES = ("up to 1 h", "up to 24 h", "up to 7 d", "older")
NOT_YET = "They are many, and were not counted yet: clean-up does it."


def health(conn: Connection) -> Report:
    """What runs, what waits, and what stands in its way."""
    jobs, estimated = reports.states(conn)
    heads, stored = census.of_projects(conn), census.of_transcripts(conn)
    document = {
        "jobs": jobs,
        "jobs_estimated": ["queued"] if estimated else [],
        "oldest_waiting": reports.oldest_waiting(conn),
        "running": reports.running(conn),
        "quarantined": reports.quarantined(conn),
        "limits": [asdict(limit) for limit in limits.in_force(conn)],
        "session_ages": [
            {"age": age, "heads": n} for age, n in zip(AGES, heads["ages"], strict=True)
        ]
        if heads
        else [],
        "heads_counted_at": heads.get("at") if heads else None,
        "transcripts": {
            "sessions": stored["sessions"] if stored else None,
            "bytes": stored["bytes"] if stored else None,
            "counted_at": stored.get("at") if stored else None,
            "disk_bytes": reports.on_disk(conn),
        },
        "project_bytes": settings().project_bytes or None,
        "biggest": stored["biggest"] if stored else [],
        "deletions_unfinished": [
            {"what": what, "id": subject, "began_at": began_at}
            for what, subject, began_at in receipts.unfinished(conn)
        ],
        "workers": [
            asdict(one)
            for one in workers.online(conn, silent_after=settings().worker_silent_after)
        ],
        "beats": [asdict(one) for one in beats.all_of_them(conn)],
        "ticks": reports.ticks(conn),
        "refused_messages": [asdict(one) for one in messages.newest_refused(conn)],
    }
    return Report(document, _health_page(document))


def _health_page(document: Row) -> Page:
    oldest, stored = document["oldest_waiting"], document["transcripts"]
    return [
        Facts(
            [
                *_states(document),
                ("oldest waiting", _waiting(oldest)),
                ("transcripts", _stored(stored)),
                ("on disk", size(stored["disk_bytes"])),
            ]
        ),
        *(
            f"The deletion of {d['what']} {d['id']} broke off, or is under way: repeat"
            f" `baton delete {d['what']} {d['id']}`."
            for d in document["deletions_unfinished"]
        ),
        Table(
            ("job", "project", "kind", "host", "pid", "agent", "runs for", "lease left"),
            [
                (
                    *(r[c] for c in ("id", "project_id", "kind", "host", "pid", "agent_pid")),
                    duration(r["runs_s"]),
                    duration(r["lease_left_s"]),
                )
                for r in document["running"]
            ],
            "Nothing runs.",
            title="Running",
        ),
        Table(
            ("credential", "until", "reason"),
            [
                (x["credential"], "it is cleared" if x["until"].year == 9999 else x["until"], x["reason"])
                for x in document["limits"]
            ],
            "No credential is parked.",
            title="Parked credentials",
        ),
        Table(
            ("job", "project", "kind", "workers killed", "error"),
            [
                tuple(r[c] for c in ("id", "project_id", "kind", "rescues", "error"))
                for r in document["quarantined"]
            ],
            "No job is quarantined.",
            title="Quarantined",
        ),
        Table(
            ("age", "heads"),
            [(r["age"], r["heads"]) for r in document["session_ages"]],
            NOT_YET,
            title="Heads by age of their session" + _as_of(document["heads_counted_at"]),
        ),
        _biggest(document),
        Table(
            ("worker", "host", "pid", "slots", "box", "CLI", "seen at"),
            [
                tuple(w[c] for c in ("id", "host", "pid", "slots", "box", "cli_version", "seen_at"))
                for w in document["workers"]
            ],
            "No worker is online: start one with `baton up`.",
            title="Workers",
        ),
        Table(
            ("task", "began at", "ended at", "result"),
            [tuple(t[c] for c in ("name", "at", "ended_at", "result")) for t in document["ticks"]],
            "No periodic task has run yet.",
            title="Periodic tasks",
        ),
        Table(
            ("task id", "task", "code", "error", "at"),
            [
                tuple(m[c] for c in ("task_id", "task", "code", "error", "at"))
                for m in document["refused_messages"]
            ],
            "No message was refused in the last days.",
            title="Refused messages",
        ),
    ]  # fmt: skip


def _biggest(document: Row) -> Table:
    limit = document["project_bytes"]
    columns = ("project", "sessions", "appended", "stored")
    return Table(
        columns,
        [
            (b["project_id"], b["sessions"], size(b["bytes"]), size(b["stored"]))
            for b in document["biggest"]
        ],
        "No transcript is stored." if document["transcripts"]["sessions"] == 0 else NOT_YET,
        right=frozenset(columns[1:]),
        title="Biggest transcripts"
        + (f" (limit: {size(limit)} stored)" if limit else "")
        + _as_of(document["transcripts"]["counted_at"]),
    )


def _states(document: Row) -> list[tuple[str, str]]:
    """How many jobs are in each state; ~ marks what is estimated."""
    return [
        (state, f"~{number(n)}" if state in document["jobs_estimated"] else str(n))
        for state, n in document["jobs"].items()
    ]


def _stored(stored: Row) -> str:
    if stored["sessions"] is None:
        return "not counted yet"
    told = f"{stored['sessions']} sessions, {size(stored['bytes'])}"
    return told + _as_of(stored["counted_at"])


def _as_of(at: str | None) -> str:
    """When it was counted, if not just now."""
    return f" (as of {datetime.fromisoformat(at):%Y-%m-%d %H:%MZ})" if at else ""


def _waiting(oldest: Row | None) -> str:
    if oldest is None:
        return "nothing waits"
    return f"{duration(oldest['waits_s'])}: {oldest['kind']} of {oldest['project_id']}"
