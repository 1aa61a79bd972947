"""What runs, what waits, what it takes, and what stands in its way, as a document."""

from dataclasses import asdict

from psycopg import Connection

from config.settings import settings
from db.jobs import beats, limits, messages, webhooks, workers
from db.operations import census, receipts, reports
from db.operations.reports import Row
from db.sessions import budgets
from worker.reports import silence, waits

AGES = ("up to 1 h", "up to 24 h", "up to 7 d", "older")


def health(conn: Connection) -> Row:
    """What runs, what waits, and what stands in its way."""
    jobs, estimated = reports.states(conn)
    heads, stored = census.of_projects(conn), census.of_transcripts(conn)
    return {
        "jobs": jobs,
        "jobs_estimated": ["queued"] if estimated else [],
        "oldest_waiting": _oldest(conn),
        "running": _running(conn),
        "quarantined": reports.quarantined(conn),
        "today": _today(conn),
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
        "webhooks": asdict(webhooks.standing(conn)),
        "refused_messages": [asdict(one) for one in messages.newest_refused(conn)],
    }


def _oldest(conn: Connection) -> Row | None:
    found = reports.oldest_waiting(conn)
    if found is None:
        return None
    why = waits.of_one(conn, found["id"])
    return {**found, "waits": asdict(why) if why else None}


def _today(conn: Connection) -> Row:
    """What the agents' turns have come to since 00:00 UTC, and what they may."""
    (spent,) = budgets.spent(conn, ("day",))
    return {
        "cost_usd": spent.usd,
        "turns": spent.turns,
        "budget_usd": settings().budget_day_usd,
        "budget_turns": settings().budget_day_turns,
    }


def _running(conn: Connection) -> list[Row]:
    rows = reports.running(conn)
    signs = silence.of(conn, [row["id"] for row in rows])
    return [
        {**row, "silent_s": signs[row["id"]].silent_s if row["id"] in signs else None}
        for row in rows
    ]
