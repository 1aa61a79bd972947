"""Jobs for people: a list, and one in detail."""

from collections.abc import Sequence
from typing import Any

from worker.cli.pages.ids import Names, named
from worker.cli.pages.layout import Facts, Page, Table
from worker.reports.waits import distinct
from worker.text.units import NOTHING, clean, duration, instant, money, shortened

Row = dict[str, Any]
LIST = ("id", "project", "kind", "state", "tries", "asked at", "how it stands")
COMMAND, PRINTED = 60, 15  # characters of a check's command, lines of what it printed
PROMPT = 300  # characters of a prompt


def jobs_page(found: Sequence[Row], names: Names, *, empty: str) -> Page:
    """Many jobs, one a line, each with a sentence: why it waits, how it runs, why it failed."""
    rows = [
        (
            named(j["id"], names),
            j["project_id"],
            kind(j),
            j["state"],
            j["attempts"],
            j["created_at"],
            standing(j),
        )
        for j in found
    ]
    return [Table(LIST, rows, empty, right=frozenset({"tries"}), words=frozenset({LIST[-1]}))]


def standing(job: Row) -> str:
    """How a job stands, in a sentence."""
    if job["waits"]:
        return str(job["waits"]["sentence"])
    if job["state"] == "running":
        runs = f"on {job['host']} for {duration(job['runs_s'])}"
        silent = job["silent_s"]
        return runs if silent is None else f"{runs}, silent for {duration(silent)}"
    if job["error_class"] or job["error"]:
        return ": ".join(part for part in (job["error_class"], job["error"]) if part)
    match job["result"]:
        case {"skipped": why}:
            return f"skipped: {why}"
        case _:
            return ""


def kind(job: Row) -> str:
    """The kind, and what was asked for when that is another word."""
    other = job["kind"] == "build" and job["asked"] in ("update", "repair")
    return str(job["asked"] if other and not job["racer"] else _part(job))


def _part(job: Row) -> str:
    """What a job is in its chain."""
    return f"racer {job['racer']}" if job["racer"] else str(job["kind"])


def job_page(job: Row, names: Names) -> Page:
    """One job with each step it ran and each session it looked at."""
    facts = [
        ("id", job["id"]),
        ("project", job["project_id"]),
        ("user", job["user_id"]),
        ("kind", kind(job)),
        ("state", job["state"]),
        ("waits", job["waits"] and job["waits"]["sentence"]),
        ("attempts", _attempts(job)),
        ("host", job["host"]),
        ("worker pid", job["worker_pid"]),
        ("agent pid", job["agent_pid"]),
        ("runs for", duration(job["runs_s"])),
        ("silent for", duration(job["silent_s"])),
        ("lease left", duration(job["lease_left_s"])),
        ("cancel asked at", job["cancel_requested_at"]),
        ("version", job["version_id"]),
        ("retry of", named(job["retry_of"], names)),
        ("asked at", job["created_at"]),
        ("runs from", _runs_from(job)),
        ("started at", job["started_at"]),
        ("finished at", job["finished_at"]),
        ("error class", job["error_class"]),
        ("error", job["error"]),
        ("prompt", shortened(job["prompt"], PROMPT)),
        ("result", job["result"]),
    ]
    always = {"state", "attempts", "error class", "error"}
    return [
        Facts([(name, value) for name, value in facts if name in always or _said(value)]),
        _steps(job["steps"], names),
        *_checks(job["checks"]),
        Table(
            ("step", "session", "outcome", "reason", "at"),
            [
                (r["step"], named(r["session_id"], names) or "fresh", r["outcome"], r["reason"], r["at"])
                for r in job["sessions_looked_at"]
            ],
            "No session was looked at yet.",
            title="Sessions looked at",
        ),
        Table(
            ("id", "kind", "state", "error class"),
            [
                (named(j["id"], names), _part(j), j["state"], j["error_class"])
                for j in job["chain"]
            ],
            "",
            title="Chain",
        ),
    ]  # fmt: skip


def job_ids(job: Row) -> tuple[list[Any], list[str | None]]:
    """The jobs and the sessions that the page of a job names."""
    sessions = [s[c] for s in job["steps"] for c in ("minted_session_id", "parent_session_id")]
    looked = [r["session_id"] for r in job["sessions_looked_at"]]
    ids = [*(j["id"] for j in job["chain"]), job["retry_of"]]
    return [one for one in ids if one], [*sessions, *looked]


def _steps(steps: list[Row], names: Names) -> Table:
    rows = [
        (
            s["step"],
            named(s["minted_session_id"], names),
            named(s["parent_session_id"], names) or "fresh",
            s["outcome"],
            s["relation"],
            s["error_class"],
            _cost(s),
            duration((s["ended_at"] - s["started_at"]).total_seconds())
            if s["ended_at"]
            else None,
        )
        for s in steps
    ]
    return Table(
        (
            "step",
            "minted session",
            "forked from",
            "outcome",
            "relation",
            "class",
            "cost",
            "took",
        ),
        rows,
        "No step has begun.",
        title="Steps",
        right=frozenset({"cost", "took"}),
    )


def _checks(found: Sequence[Row]) -> Page:
    """Each command that was run, and of the newest that failed what it printed at last."""
    if not found:
        return []
    rows = [
        (
            f"{one['round']}.{one['number']}",
            shortened(one["command"], COMMAND),
            one["outcome"],
            one["reason"]
            or (f"signal {one['signal']}" if one["signal"] else one["exit_status"]),
            duration(one["duration_ms"] / 1000),
            ", ".join(one["changed"]),
        )
        for one in found
    ]
    columns = ("round", "command", "outcome", "ended", "took", "changed")
    table = Table(columns, rows, "", title="Checks", right=frozenset({"took"}))
    if found[-1]["outcome"] == "passed":
        return [table]
    printed = found[-1]["output_tail"] or found[-1]["output_head"]
    return [table, *(f"  {clean(line)}" for line in printed.rstrip().splitlines()[-PRINTED:])]


def _cost(step: Row) -> str:
    """What it cost; where it had a budget, of how much, and while it runs what was counted."""
    cost = money(step["cost_usd"], estimated=step["cost_estimated"])
    if step["budget_usd"] is None:
        return cost
    if step["cost_usd"] is None:
        cost = money(step["spent_usd"] or 0, estimated=True)
    return f"{cost} of {money(step['budget_usd'])}"


def _said(value: Any) -> bool:
    return value not in (None, "", NOTHING)


def _attempts(job: Row) -> str:
    died = f", {job['rescues']} workers died" if job["rescues"] else ""
    return f"{job['attempts']}{died}"


def _runs_from(job: Row) -> Any:
    """When it may begin, of a job that waits for a date; one that waits for other things says so."""
    waiting = job["waits"]
    if waiting and waiting["code"] == "credential" and waiting["until"] is None:
        return None
    return job["run_at"]


def cancelled(job: Row) -> str:
    """What became of a job whose chain was cancelled."""
    if job["finished_at"]:
        return f"The {job['kind']} {job['id']} is {job['state']}."
    return (
        f"The {job['kind']} {job['id']} runs on {job['host']} and was told to stop: it does"
        " within 2 s."
    )


def chain_end(chain: Sequence[Row]) -> str:
    """How a chain ended, in a line."""
    ends = ", ".join(f"{job['kind']} {job['state']}" for job in chain if not job["racer"])
    return f"The chain {chain[0]['id']} has ended: {ends}."


def going_on(job_id: Any) -> str:
    """What who stops watching is told."""
    return f"Stopped watching; the job goes on: `baton jobs {job_id} --watch` shows it."


def change(job: Row, at: Any) -> str:
    """A line for a job whose state, or reason to wait, is another than before."""
    told = standing(job)
    return f"{instant(at)}  {job['id']}  {job['project_id']}  {kind(job)}  {job['state']}" + (
        f"  {told}" if told else ""
    )


def standing_key(job: Row) -> tuple[Any, ...]:
    """What of its standing is worth a line when it is another: not that seconds have passed."""
    return job["state"], job["attempts"], job["error_class"], distinct(job["waits"])
