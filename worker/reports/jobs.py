"""A job, and a list of jobs, as documents: the row, why it waits, how long its agent is silent."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from psycopg import Connection

from db.jobs import checks, jobs
from db.jobs.jobs import Job
from db.operations import reports
from worker.reports import silence, waits

Row = dict[str, Any]


def listed(conn: Connection, found: Sequence[Job]) -> list[Row]:
    """Each job under the names of the contract, with what is true of it right now."""
    reasons = waits.of(conn, [job.id for job in found if job.state in ("queued", "parked")])
    signs = silence.of(conn, [job.id for job in found if job.state == "running"])
    told = list[Row]()
    for job in found:
        why, sign = reasons.get(job.id), signs.get(job.id)
        told.append(
            {
                **_row(job),
                "waits": asdict(why) if why else None,
                "runs_s": sign.runs_s if sign else None,
                "silent_s": sign.silent_s if sign else None,
            }
        )
    return told


def detailed(conn: Connection, job: Job) -> Row:
    """One job with its lease, each step it ran, each session it looked at, and its chain."""
    chain = jobs.chain(conn, job.chain_id)
    return {
        **listed(conn, [job])[0],
        **reports.held(conn, job.id),
        "steps": jobs.turns(conn, job.id),
        "checks": checks.of_job(conn, job.id),
        "sessions_looked_at": jobs.resume_attempts(conn, job.id),
        "chain": [
            {
                "id": j.id,
                "kind": j.kind,
                "racer": _args(j).get("racer"),
                "state": j.state,
                "error_class": j.error_class,
            }
            for j in chain
        ],
    }


def _args(job: Job) -> Row:
    """Empty where the row holds something else: by hand, anything may stand there."""
    return job.args if isinstance(job.args, dict) else {}  # pyright: ignore[reportUnnecessaryIsInstance]


def _row(job: Job) -> Row:
    """Processes are named while they run: a pid of another time is another process's by now."""
    runs = job.state == "running"
    args = _args(job)
    return {
        "id": job.id,
        "chain_id": job.chain_id,
        "parent_id": job.parent_id,
        "retry_of": job.retry_of,
        "project_id": job.project_id,
        "user_id": job.user_id,
        "lane": job.lane,
        "kind": job.kind,
        "asked": args.get("asked"),
        "racer": args.get("racer"),
        "prompt": args.get("prompt"),
        "key": job.key,
        "priority": job.priority,
        "version_id": job.version_id,
        "state": job.state,
        "attempts": job.attempts,
        "rescues": job.rescues,
        "host": job.host if runs or job.ended else None,
        "worker_pid": job.pid if runs else None,
        "agent_pid": job.agent_pid if runs else None,
        "run_at": job.run_at,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "error_class": job.error_class,
        "error": job.error,
        "result": job.result,
    }
