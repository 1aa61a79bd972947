"""How the rows of the ledger are laid out for people: one function a page."""

from collections.abc import Sequence
from typing import Any

from db.jobs import Job
from db.projects import Project, Version
from worker.screen import (
    NOTHING,
    Facts,
    Page,
    Table,
    duration,
    money,
    number,
    shortened,
    size,
)

Row = dict[str, Any]
SHORT = 8  # characters by which an id is told from others


def job_document(job: Job) -> Row:
    """A job under the names of the contract."""
    return {
        "id": job.id,
        "chain_id": job.chain_id,
        "parent_id": job.parent_id,
        "retry_of": job.retry_of,
        "project_id": job.project_id,
        "user_id": job.user_id,
        "lane": job.lane,
        "kind": job.kind,
        "asked": job.args.get("asked"),
        "prompt": job.args.get("prompt"),
        "key": job.key,
        "priority": job.priority,
        "version_id": job.version_id,
        "state": job.state,
        "attempts": job.attempts,
        "rescues": job.rescues,
        "host": job.host,
        "worker_pid": job.pid,
        "agent_pid": job.agent_pid,
        "run_at": job.run_at,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "error_class": job.error_class,
        "error": job.error,
        "result": job.result,
    }


def jobs_page(jobs: Sequence[Job]) -> Page:
    """Many jobs, one a line."""
    columns = ("id", "project", "kind", "state", "tries", "host", "worker", "agent", "asked at")
    rows = [
        (j.id, j.project_id, _kind(j), j.state, j.attempts, j.host, j.pid, j.agent_pid, j.created_at)
        for j in jobs
    ]  # fmt: skip
    failed = [(j.id, j.error_class, shortened(j.error, 200)) for j in jobs if j.error_class]
    table = Table(
        columns,
        rows,
        "There are no jobs: ask for one with `baton enqueue`.",
        right=frozenset({"tries", "worker", "agent"}),
    )
    if not failed:
        return [table]
    return [table, Table(("id", "class", "error"), failed, "", title="Errors")]


def job_page(
    job: Job, held: Row, chain: Sequence[Job], steps: list[Row], looked: list[Row]
) -> Page:
    """One job with each step it ran and each session it looked at."""
    facts = [
        ("id", job.id),
        ("project", job.project_id),
        ("user", job.user_id),
        ("kind", _kind(job)),
        ("state", job.state),
        ("attempts", _attempts(job)),
        ("host", job.host),
        ("worker pid", job.pid),
        ("agent pid", job.agent_pid),
        ("lease left", duration(held.get("lease_left_s"))),
        ("cancel asked at", held.get("cancel_requested_at")),
        ("version", job.version_id),
        ("retry of", job.retry_of),
        ("asked at", job.created_at),
        ("runs from", job.run_at),
        ("started at", job.started_at),
        ("finished at", job.finished_at),
        ("error class", job.error_class),
        ("error", job.error),
        ("prompt", shortened(job.args.get("prompt"), 300)),
        ("result", shortened(str(job.result), 300) if job.result else None),
    ]
    always = {"state", "attempts", "host", "worker pid", "agent pid", "error class", "error"}
    return [
        Facts([(name, value) for name, value in facts if name in always or _said(value)]),
        _steps(steps),
        Table(
            ("step", "session", "outcome", "reason", "at"),
            [(r["step"], r["session_id"] or "fresh", r["outcome"], r["reason"], r["at"]) for r in looked],
            "No session was looked at yet.",
            title="Sessions looked at",
        ),
        Table(
            ("id", "kind", "state", "error class"),
            [(j.id, _kind(j), j.state, j.error_class) for j in chain],
            "",
            title="Chain",
        ),
    ]  # fmt: skip


def _steps(steps: list[Row]) -> Table:
    rows = [
        (
            s["step"],
            s["minted_session_id"],
            s["parent_session_id"] or "fresh",
            s["outcome"],
            s["relation"],
            s["error_class"],
            money(s["cost_usd"], estimated=s["cost_estimated"]),
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


def _said(value: Any) -> bool:
    return value not in (None, "", NOTHING)


def _kind(job: Job) -> str:
    """The kind, and what was asked for when that is another word."""
    asked = job.args.get("asked")
    return "update" if job.kind == "build" and asked == "update" else job.kind


def _attempts(job: Job) -> str:
    died = f", {job.rescues} workers died" if job.rescues else ""
    return f"{job.attempts}{died}"


def chain_page(project_id: str, moves: list[Row]) -> Page:
    """Each move of the head, oldest first: the path that the project's session went."""
    rows = [
        (
            number(n),
            m["created_at"],
            m["source"],
            f"{short(m['old_session_id'])} → {m['new_session_id']}",
            _origin(m),
            tokens(m),
            money(m["cost_usd"], estimated=m["cost_estimated"]),
            duration(None if m["duration_ms"] is None else m["duration_ms"] / 1000),
            m["version_id"],
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
        f"Project {project_id} has no session yet.",
        right=frozenset({"#", "new+cached→out", "cost", "took"}),
    )
    return [table, *([f"{len(rows)} moves, {money(spent)} in all."] if rows else [])]


def _origin(move: Row) -> str:
    """What the new session was made of, when that was not the old head."""
    old, parent = move["old_session_id"], move["parent_session_id"]
    reason = f" ({move['reason']})" if move["reason"] else ""
    if move["source"] == "operator":
        return f"moved by an operator{reason}"
    if parent is None:
        return f"fresh{reason}"
    return f"forked{reason}" if parent == old else f"forked {short(parent)}{reason}"


def short(session_id: str | None) -> str:
    """The part of an id by which people tell it from others."""
    return session_id[:SHORT] if session_id else "none"


def tokens(row: Row) -> str:
    """Tokens read anew, from the prompt cache, and written."""
    if row["input_tokens"] is None:
        return NOTHING
    new = row["input_tokens"] + row["cache_creation_tokens"]
    return f"{number(new)}+{number(row['cache_read_tokens'])}→{number(row['output_tokens'])}"


def project_page(
    project: Project, version: Version | None, overview: Row, open_jobs: list[Row]
) -> Page:
    """One project: whose it is, where its session stands, and what is going on."""
    return [
        Facts(
            [
                ("project", project.project_id),
                ("user", project.user_id),
                ("workspace", project.workspace or "the default: BATON_WORKSPACES/<project>"),
                ("session", project.last_ai_session_id or "none yet"),
                ("moved at", project.last_ai_session_updated_at),
                ("in step", overview["sync_status"]),
                ("next turn", "begins fresh" if project.fresh_next else "resumes the session"),
                ("versions", overview["versions"]),
                ("latest version", version.version_id if version else None),
                ("its session", version.ai_session_id if version else None),
                ("moves", overview["moves"]),
                ("cost", money(overview["cost_usd"])),
                ("transcripts", _transcripts(overview)),
                ("events", project.event_seq),
            ]
        ),
        Table(
            ("id", "kind", "lane", "state", "tries", "lease left", "from", "why"),
            [
                (
                    j["id"],
                    j["kind"],
                    j["lane"],
                    j["state"],
                    j["attempts"],
                    duration(j["lease_left_s"]),
                    j["run_at"],
                    j["error_class"],
                )
                for j in open_jobs
            ],
            "Nothing is queued or running.",
            title="Open jobs",
        ),
    ]


def _transcripts(overview: Row) -> str:
    return f"{overview['transcripts']} with {size(overview['transcript_bytes'])}"


def session_page(document: Row) -> Page:
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
                (r["at"], r["job_id"], r["step"], r["outcome"], r["reason"])
                for r in document["resume_attempts"]
            ],
            "Nobody has tried to resume it.",
            title="Resume attempts",
        ),
    ]


def cancelled(job: Job) -> str:
    """What became of a job whose chain was cancelled."""
    if job.ended:
        return f"The {job.kind} {job.id} is {job.state}."
    return (
        f"The {job.kind} {job.id} runs on {job.host} and was told to stop: it does within 2 s."
    )


def chain_end(chain: Sequence[Job]) -> str:
    """How a chain ended, in a line."""
    ends = ", ".join(f"{job.kind} {job.state}" for job in chain)
    return f"The chain {chain[0].id} has ended: {ends}."
