"""What doctor makes of the signs that jobs, beat, clean-up and producers leave in the ledger."""

from datetime import timedelta
from typing import Literal

from psycopg import Connection

from config.settings import settings
from db.jobs import beats, messages, webhooks
from db.operations import reports
from worker.broker import periodic
from worker.reports import waits
from worker.text.units import duration, shortened

Verdict = tuple[Literal["ok", "warn", "fail"], str]

SILENT = 30.0  # seconds; a beat's pulse is written each 5 s
RESTARTS_WITHIN = 600.0  # seconds
MANY = 5  # starts in that time; a deploy has one or two
SLACK = 60.0  # seconds by which clean-up may be late
REFUSED_WITHIN = timedelta(days=1)
UNSENT = 300.0  # seconds that a webhook may be due; a host that hangs has four at a time


def waiting(conn: Connection) -> Verdict:
    """The due job that has waited longest, and why; whether that is bad others say."""
    oldest = reports.oldest_waiting(conn)
    why = waits.of_one(conn, oldest["id"]) if oldest else None
    if oldest is None or why is None:
        return "ok", "no due job waits"
    whose = f"a {oldest['kind']} of {oldest['project_id']}"
    return "ok", f"{whose} for {duration(oldest['waits_s'])}: {why.sentence}"


def beat(conn: Connection) -> Verdict:
    """Whether a beat's scheduler goes round, whatever becomes of what it asks for."""
    known = beats.all_of_them(conn)
    alive = [one for one in known if one.silent_s <= SILENT]
    starts = sum(one.runs_s <= RESTARTS_WITHIN for one in known)
    if not known:
        return "warn", "none was heard of: no clean-up is asked for; start `baton up`."
    if not alive:
        newest = known[0]
        return "warn", (
            f"the last one, process {newest.pid} on {newest.host}, has been silent for"
            f" {duration(newest.silent_s)}: no clean-up is asked for; start it, or `baton up`."
        )
    if starts > MANY:
        return "warn", (
            f"it was started {starts} times in the last {duration(RESTARTS_WITHIN)}: look at its"
            " log; what is due is asked for at each start."
        )
    more = f"; there are {len(alive)}, which is harmless" if len(alive) > 1 else ""
    return "ok", f"its scheduler looked {duration(alive[0].silent_s)} ago{more}"


def clean_up(conn: Connection) -> Verdict:
    """Whether what beat asks for is done."""
    every = settings().upkeep_every.total_seconds()
    last = {tick["name"]: tick["ago_s"] for tick in reports.ticks(conn)}
    late = [n for n in periodic.NAMES if last.get(n, every) > 2 * every + SLACK]
    oldest = max((one.runs_s for one in beats.all_of_them(conn)), default=0.0)
    never = [n for n in periodic.NAMES if n not in last]
    if late or (never and oldest > every + SLACK):
        return "warn", (
            f"{', '.join(late + never)} had its turn more than {duration(2 * every)} ago, or"
            " never: a beat must ask for it, and a worker's main process read the queue"
            f" `{periodic.QUEUE}`."
        )
    if never:
        return "ok", "none was done yet; a beat asks for it when it starts"
    return "ok", f"the last was done {duration(min(last.values()))} ago"


def refused(conn: Connection) -> Verdict:
    """Whether producers send what we do not take: they may not hear of it."""
    found = messages.newest_refused(conn, within=REFUSED_WITHIN, limit=1000)
    if not found:
        return "ok", "none was refused in the last day"
    newest = found[0]
    return "warn", (
        f"{len(found)} were refused in the last day, the newest of {newest.task},"
        f" {newest.task_id}: {newest.error} `baton report health` lists more."
    )


def webhooks_told(conn: Connection) -> Verdict:
    """Whether those who wanted to be told of a chain's end are."""
    found = webhooks.standing(conn)
    wrong = list[str]()
    if found.failing:
        wrong.append(f"{found.failing} failed and will be tried again")
    if found.given_up:
        wrong.append(f"{found.given_up} were given up in the last day")
    if wrong and found.error:
        wrong.append(f"the newest to {found.host} ({shortened(found.error, 200)})")
    if (found.overdue_s or 0.0) > UNSENT:
        wrong.append(
            f"one has been due for {duration(found.overdue_s)}: relays send them, and need"
            " BATON_CALLBACK_SECRET or BATON_SECRET"
        )
    if wrong:
        return "warn", f"{'; '.join(wrong)}. `baton webhooks` lists them."
    return "ok", "none fails"
