"""The reports on sync, resuming, cost and checks, for people."""

from datetime import datetime
from typing import Any

from worker.cli.pages.ids import Names, named
from worker.cli.pages.layout import Facts, Page, Table
from worker.text.units import duration, instant, money, number, share

Row = dict[str, Any]
GOAL = 0.95  # of the turns that are to resume
SHOWN = 500  # projects in a table; the document has all
NOT_COUNTED = "there are many, and clean-up has not gone through all of them yet."
WAYS = ("resumed", "older", "recovered", "fallback", "policy", "first")


def sync_page(document: Row, names: Names) -> Page:
    """Whether heads and transitions agree."""
    table = Table(
        ("project", "status", "head", "newest transition", "version", "its session"),
        [
            (
                r["project_id"],
                r["sync_status"],
                named(r["last_ai_session_id"], names),
                named(r["newest_transition"], names),
                named(r["version_id"], names),
                named(r["version_session_id"], names),
            )
            for r in document["rows"][:SHOWN]
        ],
        "There are no projects yet.",
    )
    count, off = document["projects"], document["out_of_sync"]
    told = f"{count - off} of {count} projects are in step ({share(document['rate'])})."
    if off:
        told += " The others were written by something else: look at `baton chain PROJECT`."
    if not document["all_counted"]:
        told += f" Only those that moved last: {NOT_COUNTED}"
    elif document["counted_at"]:
        at = instant(datetime.fromisoformat(document["counted_at"]))
        told += f" All were looked at by {at}; those here just now."
    return [table, *_more(len(document["rows"])), told]


def sync_sessions(document: Row) -> list[str | None]:
    """The sessions that the page names."""
    columns = ("last_ai_session_id", "newest_transition", "version_session_id")
    return [row[column] for row in document["rows"][:SHOWN] for column in columns]


def _more(count: int) -> list[str]:
    return [f"The first {SHOWN} are shown; --json has all."] if count > SHOWN else []


def _covers(covers: Row) -> list[str]:
    """What is to be said if it is not the whole period."""
    if covers["since"] is None:
        return []
    return [
        f"This is of the newest {number(covers['turns'])} turns, since"
        f" {instant(covers['since'])}; --all takes all of the period."
    ]


def resume_page(document: Row) -> Page:
    """How turns began, by day, and why sessions were not resumed."""
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
            ("day", *WAYS, "rate"),
            [
                (d["day"], *(d["began"].get(way, 0) for way in WAYS), share(d["rate"]))
                for d in document["by_day"]
            ],
            "No turn has been committed.",
            right=frozenset({*WAYS, "rate"}),
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


def cost_page(document: Row) -> Page:
    """What was spent, and what a resumed build costs beside a fresh one."""
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
        *_more(len(rows)),
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


def checks_page(document: Row) -> Page:
    """How builds stood their checks, and what mending them cost."""
    ways = (
        ("passed at first", "at_first"),
        ("after repair", "after_repair"),
        ("never", "never"),
    )
    shares = [
        (name, f"{document[way]} ({share(document[f'{way}_share'])})") for name, way in ways
    ]
    samples = [
        (
            one["sample"],
            one["turns"],
            money(one["cost_usd"], estimated=one["estimated"]),
            duration(_seconds(one["duration_ms"])),
        )
        for one in document["samples"]
    ]
    facts = [
        ("builds checked", f"{document['builds']} in {document['days']} days"),
        *shares,
        ("not settled yet", document["open"]),
        ("repairs", f"{document['repairs']}, {money(document['repairs_usd'])} in all"),
        *_races(document["racing"]),
    ]
    columns = ("repairs", "turns", "cost", "time")
    return [
        Facts(facts),
        Table(
            columns,
            samples,
            "Nothing has been mended.",
            right=frozenset(columns[1:]),
            title="A repair, resumed and fresh (means)",
        ),
        _repaired(document),
    ]


def _races(found: Row) -> list[tuple[str, str]]:
    if not found["races"]:
        return []
    spent, lost = money(found["cost_usd"]), money(found["lost_usd"])
    return [
        ("races", f"{found['races']} of {found['racers']} racers, {found['won']} won"),
        ("spent on races", f"{spent}, of it {lost} for racers that were not taken"),
    ]


def _repaired(document: Row) -> str:
    part = document["cost_reduction"]
    if part is None:
        return (
            "Nothing to compare yet: it takes repairs that resumed, and repairs that did not."
        )
    what = "more" if part < 0 else "less"
    return (
        f"A resumed repair costs {share(abs(part))} {what} than a {document['baseline']} one."
    )


def _seconds(milliseconds: Any) -> float | None:
    return None if milliseconds is None else float(milliseconds) / 1000


def _verdict(compared: Row) -> str:
    parts = [
        f"{verb} {share(abs(part))} {'more' if part < 0 else 'less'}{what}"
        for verb, part, what in (
            ("costs", compared["cost_reduction"], ""),
            ("takes", compared["duration_reduction"], " time"),
        )
        if part is not None
    ]
    if not parts:
        return "Nothing to compare yet: it takes builds that resumed, and builds that did not."
    told = f"A resumed build {' and '.join(parts)} than one of"
    if compared["baseline"] == "control":
        return f"{told} the control sample."
    return (
        f"{told} those that began fresh, which are mostly first builds: a control sample"
        " (BATON_RESUME_PERCENT below 100) makes this a fair measure."
    )
