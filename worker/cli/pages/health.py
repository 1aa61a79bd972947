"""`baton report health`, for people."""

from datetime import datetime
from typing import Any

from worker.cli.pages.ids import Names, named
from worker.cli.pages.layout import Facts, Page, Table
from worker.text.units import duration, instant, money, number, size

Row = dict[str, Any]
NOT_YET = "They are many, and were not counted yet: clean-up does it."


def health_jobs(document: Row) -> list[Any]:
    """The jobs that the page names."""
    return [row["id"] for row in (*document["running"], *document["quarantined"])]


def health_page(document: Row, names: Names) -> Page:
    """What runs, what waits, and what stands in its way."""
    oldest, stored = document["oldest_waiting"], document["transcripts"]
    return [
        Facts(
            [
                *_states(document),
                ("oldest waiting", _waiting(oldest)),
                ("transcripts", _stored(stored)),
                ("on disk", size(stored["disk_bytes"])),
                ("today", _today(document["today"])),
                ("webhooks", _webhooks(document["webhooks"])),
            ]
        ),
        *(
            f"The deletion of {d['what']} {d['id']} broke off, or is under way: repeat"
            f" `baton delete {d['what']} {d['id']}`."
            for d in document["deletions_unfinished"]
        ),
        Table(
            ("job", "project", "kind", "host", "pid", "agent", "runs for", "silent for", "lease left"),
            [
                (
                    named(r["id"], names),
                    *(r[c] for c in ("project_id", "kind", "host", "pid", "agent_pid")),
                    duration(r["runs_s"]),
                    duration(r["silent_s"]),
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
                (named(r["id"], names), *(r[c] for c in ("project_id", "kind", "rescues", "error")))
                for r in document["quarantined"]
            ],
            "No job is quarantined.",
            words=frozenset({"error"}),
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
            words=frozenset({"result"}),
            title="Periodic tasks",
        ),
        Table(
            ("task id", "task", "code", "error", "at"),
            [
                tuple(m[c] for c in ("task_id", "task", "code", "error", "at"))
                for m in document["refused_messages"]
            ],
            "No message was refused in the last days.",
            words=frozenset({"error"}),
            title="Refused messages",
        ),
    ]  # fmt: skip


def _webhooks(found: Row) -> str:
    """What was not delivered; `baton webhooks` lists it."""
    told = [
        f"{number(found[n])} {how}"
        for n, how in (
            ("failing", "failed, tried again"),
            ("given_up", "given up in the last day"),
        )
        if found[n]
    ]
    return ", ".join(told) or "none fails"


def _today(today: Row) -> str:
    """Since 00:00 UTC, with the budgets of a day where there are any."""
    usd, turns = money(today["cost_usd"]), f"{number(today['turns'])} turns"
    if today["budget_usd"] is not None:
        usd += f" of {money(today['budget_usd'])}"
    if today["budget_turns"] is not None:
        turns += f" of {number(today['budget_turns'])}"
    return f"{usd}, {turns}"


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
    return f" (as of {instant(datetime.fromisoformat(at))})" if at else ""


def _waiting(oldest: Row | None) -> str:
    if oldest is None:
        return "nothing that is due"
    told = f"{duration(oldest['waits_s'])}: {oldest['kind']} of {oldest['project_id']}"
    return f"{told}. {oldest['waits']['sentence']}" if oldest["waits"] else told
