"""What `baton report sync|resume|cost|checks` tells, as documents."""

from collections import Counter
from datetime import timedelta
from typing import Any

from psycopg import Connection

from db.operations import census, proofs, reports
from db.operations.reports import Row
from db.sessions import windows
from db.sessions.windows import NEWEST, Window

LOOKED_AT = 500  # projects
RESUMED = ("resumed", "older", "recovered")  # ways in which a turn goes on from the past


def sync(conn: Connection) -> Row:
    """Is every project's head its newest transition? By construction: so `out_of_sync` above
    nought is an alarm.

    Of many projects those are looked at that moved last, and those that clean-up, which goes
    through all of them, found out of step.
    """
    counted = census.of_projects(conn)
    here = reports.sync(conn, _looked_at(conn, counted))
    off = sum(row["sync_status"] != "SYNCED" for row in here)
    projects, more = len(here), 0
    if counted and counted.get("at"):
        projects, more = counted["projects"], counted["out_of_sync"] - len(counted["examples"])
    wrong = off + more
    return {
        "projects": projects,
        "out_of_sync": wrong,
        "rate": 1 - wrong / projects if projects else None,
        "rows": here,
        "counted_at": counted.get("at") if counted else None,
        "all_counted": counted is not None,
    }


def _looked_at(conn: Connection, counted: Row | None) -> list[str]:
    if counted and not counted.get("at"):
        return counted["ids"]
    return [*(counted["examples"] if counted else []), *reports.moved_last(conn, LOOKED_AT)]


def resume_rate(counts: Counter[str]) -> float | None:
    """Of the turns that were to resume, the share that did; None when there were none."""
    went_on = sum(counts[way] for way in RESUMED)
    meant = went_on + counts["fallback"]
    return went_on / meant if meant else None


def resume(conn: Connection, days: int, *, whole: bool = False) -> Row:
    """How turns began, by day, and why sessions were not resumed; of the newest, or the `whole`
    period."""
    window, oldest = _window(days, whole), list[Any]()
    total, by_day = Counter[str](), dict[str, Counter[str]]()
    for row in windows.resumed(conn, window):
        oldest.append(row["oldest"])
        total[row["began"]] += row["turns"]
        by_day.setdefault(row["day"], Counter())[row["began"]] += row["turns"]
    covers = window.covered(total.total(), min(oldest, default=None))
    reasons = windows.resume_reasons(conn, window, covers["since"])
    rate, had_head = resume_rate(total), total.total() - total["first"]
    passed_over = total["fallback"] + total["older"]
    return {
        "days": days,
        "covers": covers,
        "turns": total.total(),
        "with_a_head": had_head,
        "began": dict(total),
        "rate": rate,
        "fallback_share": passed_over / had_head if had_head else None,
        "by_day": [
            {"day": day, "began": dict(counts), "rate": resume_rate(counts)}
            for day, counts in by_day.items()
        ],
        "reasons": reasons,
    }


def _window(days: int, whole: bool, project_id: str | None = None) -> Window:
    return Window(timedelta(days=days), project_id, None if whole else NEWEST)


def cost(
    conn: Connection, days: int, project_id: str | None = None, *, whole: bool = False
) -> Row:
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
    return {
        "days": days,
        "covers": covers,
        "cost_usd": sum((row["cost_usd"] for row in rows), start=wasted["cost_usd"]),
        "estimated": wasted["estimated"] or any(row["estimated"] for row in rows),
        "failed_turns": wasted,
        "rows": rows,
        "resuming": compare(samples),
    }


def checks(conn: Connection, days: int) -> Row:
    """How builds stood their checks, and what a repair costs in the session that made the files
    beside one that begins fresh."""
    period = timedelta(days=days)
    found, samples = proofs.outcomes(conn, period), proofs.repairs(conn, period)
    ended = found["at_first"] + found["after_repair"] + found["never"]
    shares = {
        f"{name}_share": found[name] / ended if ended else None
        for name in ("at_first", "after_repair", "never")
    }
    by_name = {one["sample"]: one for one in samples}
    ours, theirs = by_name.get("resumed"), by_name.get("control") or by_name.get("fresh")
    reduction = None
    if ours and theirs and theirs["cost_usd"]:
        reduction = float(1 - ours["cost_usd"] / theirs["cost_usd"])
    spent = sum((one["spent_usd"] for one in samples), start=0)
    return {
        "days": days,
        **found,
        **shares,
        "repairs_usd": spent,
        "racing": proofs.races(conn, period),
        "samples": samples,
        "baseline": theirs["sample"] if theirs else None,
        "cost_reduction": reduction,
    }


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
