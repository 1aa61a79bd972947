"""The reports: each a document for JSON and a page for people. `ok` False: something is wrong."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

from psycopg import Connection

from db import census, reports, windows
from db.reports import Row
from db.windows import NEWEST, Window
from worker.screen import Facts, Page, Table, duration, money, number, share

RESUMED = ("resumed", "older", "recovered")  # ways in which a turn goes on from the past
GOAL = 0.95  # of the turns that are to resume (D16)
SHOWN = 500  # projects in a table
NOT_COUNTED = "there are many, and clean-up has not gone through all of them yet."


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, twice over; `ok` decides the exit code."""

    document: Row
    page: Page
    ok: bool = True


def sync(conn: Connection) -> Report:
    """Is every project's head its newest transition? By construction: so less than all is an alarm.

    Of many projects those are looked at that moved last, and those that clean-up, which goes
    through all of them, found out of step.
    """
    counted = census.of_projects(conn)
    here = reports.sync(conn, _looked_at(conn, counted))
    off = [row for row in here if row["sync_status"] != "SYNCED"]
    projects, more = len(here), 0
    if counted and counted.get("at"):
        projects, more = counted["projects"], counted["out_of_sync"] - len(counted["examples"])
    wrong = len(off) + more
    rate = 1 - wrong / projects if projects else None
    document = {
        "projects": projects,
        "out_of_sync": wrong,
        "rate": rate,
        "rows": here,
        "counted_at": counted.get("at") if counted else None,
        "all_counted": counted is not None,
    }
    return Report(document, _sync_page(document), ok=not wrong)


def _looked_at(conn: Connection, counted: Row | None) -> list[str]:
    if counted and not counted.get("at"):
        return counted["ids"]
    return [*(counted["examples"] if counted else []), *reports.moved_last(conn, SHOWN)]


def _sync_page(document: Row) -> Page:
    rows, wrong, projects = document["rows"], document["out_of_sync"], document["projects"]
    columns = ("project", "status", "head", "newest transition", "version", "its session")
    table = Table(
        columns,
        [
            (
                r["project_id"],
                r["sync_status"],
                r["last_ai_session_id"],
                r["newest_transition"],
                r["version_id"],
                r["version_session_id"],
            )
            for r in rows[:SHOWN]
        ],
        "There are no projects yet.",
    )
    told = f"{projects - wrong} of {projects} projects are in step ({share(document['rate'])})."
    if wrong:
        told += " The others were written by something else: look at `baton chain PROJECT`."
    if not document["all_counted"]:
        told += f" Only those that moved last: {NOT_COUNTED}"
    elif document["counted_at"]:
        told += f" All were looked at by {document['counted_at'][:16]}Z; those here just now."
    return [table, told]


def resume_rate(counts: Counter[str]) -> float | None:
    """Of the turns that were to resume, the share that did; None when there were none."""
    went_on = sum(counts[way] for way in RESUMED)
    meant = went_on + counts["fallback"]
    return went_on / meant if meant else None


def _window(days: int, whole: bool, project_id: str | None = None) -> Window:
    return Window(timedelta(days=days), project_id, None if whole else NEWEST)


def _covers(covers: Row) -> list[str]:
    """What is to be said if it is not the whole period."""
    if covers["since"] is None:
        return []
    return [
        f"This is of the newest {number(covers['turns'])} turns, since"
        f" {covers['since'].astimezone(UTC):%Y-%m-%d %H:%MZ}; --all takes all of the period."
    ]


def resume(conn: Connection, days: int, *, whole: bool = False) -> Report:
    """How turns began, by day, and why sessions were not resumed; of the newest, or the `whole`
    period."""
    window, oldest = _window(days, whole), list[Any]()
    total, by_day = Counter[str](), dict[str, Counter[str]]()
    for row in windows.resumed(conn, window):
        oldest.append(row["oldest"])
        total[row["began"]] += row["turns"]
        by_day.setdefault(str(row["day"]), Counter())[row["began"]] += row["turns"]
    covers = window.covered(total.total(), min(oldest, default=None))
    reasons = windows.resume_reasons(conn, window, covers["since"])
    rate, had_head = resume_rate(total), total.total() - total["first"]
    passed_over = total["fallback"] + total["older"]
    fallback = passed_over / had_head if had_head else None
    document = {
        "days": days,
        "covers": covers,
        "turns": total.total(),
        "with_a_head": had_head,
        "began": dict(total),
        "rate": rate,
        "fallback_share": fallback,
        "by_day": [
            {"day": day, "began": dict(counts), "rate": resume_rate(counts)}
            for day, counts in by_day.items()
        ],
        "reasons": reasons,
    }
    return Report(document, _resume_page(document, by_day))


def _resume_page(document: Row, by_day: dict[str, Counter[str]]) -> Page:
    ways = ("resumed", "older", "recovered", "fallback", "policy", "first")
    rate = document["rate"]
    low = f", below the goal of {share(GOAL)}" if rate is not None and rate < GOAL else ""
    return [
        *_covers(document["covers"]),
        Facts(
            [
                ("turns", f"{document['turns']} in {document['days']} days"),
                ("of them with a head", document["with_a_head"]),
                ("resume rate", f"{share(rate)}{low}"),
                ("head passed over", share(document["fallback_share"])),
            ]
        ),
        Table(
            ("day", *ways, "rate"),
            [(d, *(c[way] for way in ways), share(resume_rate(c))) for d, c in by_day.items()],
            "No turn has been committed.",
            right=frozenset({*ways, "rate"}),
            title="How turns began, by day (UTC)",
        ),
        Table(
            ("what", "reason", "times", "latest"),
            [(r["what"], r["reason"], r["times"], r["latest"]) for r in document["reasons"]],
            "Every session that was tried was resumed.",
            right=frozenset({"times"}),
            title="Why sessions were not resumed",
        ),
    ]


def cost(
    conn: Connection, days: int, project_id: str | None = None, *, whole: bool = False
) -> Report:
    """What was spent, and what a resumed build costs beside a fresh one; in the newest turns, or
    in the `whole` period."""
    window = _window(days, whole, project_id)
    rows, samples = windows.costs(conn, window)
    covers = window.covered(
        sum(row["turns"] for row in rows),
        min((row.pop("oldest") for row in rows), default=None),
    )
    wasted = windows.in_vain(conn, window, covers["since"])
    for row in rows:
        read = row["new_tokens"] + row["cached_tokens"]
        row["cached_share"] = row["cached_tokens"] / read if read else None
    document = {
        "days": days,
        "covers": covers,
        "cost_usd": sum((row["cost_usd"] for row in rows), start=wasted["cost_usd"]),
        "estimated": wasted["estimated"] or any(row["estimated"] for row in rows),
        "failed_turns": wasted,
        "rows": rows,
        "resuming": compare(samples),
    }
    return Report(document, _cost_page(document))


def compare(samples: list[Row]) -> Row:
    """Builds that resumed beside those that did not: the control sample when there is one.

    The reductions are shares of the fresh figure; None while either side is missing.
    Without a control sample fresh builds are mostly first ones, which is no fair measure:
    `baseline` says which it is.
    """
    found = {sample["sample"]: sample for sample in samples}
    baseline = "control" if "control" in found else "fresh" if "fresh" in found else None
    ours, theirs = found.get("resumed"), found.get(baseline or "")

    def saved(name: str) -> float | None:
        if not ours or not theirs or ours[name] is None or not theirs[name]:
            return None
        return float(1 - ours[name] / theirs[name])

    return {
        "baseline": baseline,
        "cost_reduction": saved("cost_usd"),
        "duration_reduction": saved("duration_ms"),
        "samples": samples,
    }


def _cost_page(document: Row) -> Page:
    rows, compared = document["rows"], document["resuming"]
    total = money(document["cost_usd"], estimated=document["estimated"])
    wasted = document["failed_turns"]
    right = frozenset({"turns", "cost", "new", "cached", "out", "from cache", "time"})
    return [
        f"{total} in {document['days']} days; ~ marks estimates. Of it"
        f" {money(wasted['cost_usd'], estimated=wasted['estimated'])} for"
        f" {wasted['turns']} turns that came to nothing.",
        *_covers(document["covers"]),
        Table(
            ("project", "kind", "source", "turns", "cost", "new", "cached", "out", "from cache", "time"),
            [
                (
                    r["project_id"],
                    r["kind"],
                    r["source"],
                    r["turns"],
                    money(r["cost_usd"], estimated=r["estimated"]),
                    number(r["new_tokens"]),
                    number(r["cached_tokens"]),
                    number(r["output_tokens"]),
                    share(r["cached_share"]),
                    duration((r["duration_ms"] or 0) / 1000),
                )
                for r in rows[:SHOWN]
            ],
            "No turn has been committed.",
            right=right,
            title="By project, kind and source (tokens)",
        ),
        Table(
            ("builds", "turns", "cost", "time", "median time", "from cache"),
            [
                (
                    s["sample"],
                    s["turns"],
                    money(s["cost_usd"], estimated=s["estimated"]),
                    duration(_seconds(s["duration_ms"])),
                    duration(_seconds(s["duration_ms_p50"])),
                    share(s["cached_share"]),
                )
                for s in compared["samples"]
            ],
            "No build has been committed.",
            right=right | {"median time"},
            title="A build, resumed and fresh (means)",
        ),
        _verdict(compared),
    ]  # fmt: skip


def _seconds(milliseconds: Any) -> float | None:
    return None if milliseconds is None else float(milliseconds) / 1000


def _verdict(compared: Row) -> str:
    if compared["cost_reduction"] is None and compared["duration_reduction"] is None:
        return "Nothing to compare yet: it takes builds that resumed, and builds that did not."
    told = (
        f"A resumed build costs {share(compared['cost_reduction'])} less and takes"
        f" {share(compared['duration_reduction'])} less time than one of"
    )
    if compared["baseline"] == "control":
        return f"{told} the control sample."
    return (
        f"{told} those that began fresh, which are mostly first builds: a control sample"
        " (BATON_RESUME_PERCENT below 100) makes this a fair measure."
    )
