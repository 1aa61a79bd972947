"""Build a project, or change it: one turn of the agent on the project's session."""

from typing import Any

from celery.app.task import Task

from db import attempts
from db.lanes import MAIN
from db.pool import connection
from worker import prompts, workspace
from worker.app import app
from worker.chain import Attempt
from worker.commit import Outcome, commit
from worker.delivery import SHOWN, deliver, does
from worker.step import Step


@app.task(name="tasks.build", bind=True, throws=SHOWN)
def build(self: Task[Any, Any], *given: Any, **asked: Any) -> str | None:
    """Wake the job `job_id`; or, from a plain producer, the request itself."""
    return deliver(self, "build", given, asked)


@does("build")
def do_build(at: Attempt) -> None:
    """Let the agent do what the user asks, and record the version it leaves."""
    job = at.job
    begun = at.begin_work()
    prompt = str(job.args["prompt"])
    turn = at.run(Step(name="build", prompt=_of_the_replaced(at) + prompt))
    made = workspace.finish(job, begun)
    version = job.version_id or str(job.chain_id) if job.lane == MAIN else None
    commit(
        at,
        turn,
        Outcome(
            step="build",
            source="update" if job.head else "build",
            version=version,
            new_version=version is not None,
            tree=made.commit,
            left_out=made.left_out,
            said=[("user", prompt), ("assistant", turn.text)],
            result={
                "text": turn.text,
                "files_created": made.created,
                "files_created_count": made.created_count,
            },
        ),
    )
    workspace.confirm(job, begun, made.commit, earlier=at.earlier)
    at.checkpoint(turn)


def _of_the_replaced(at: Attempt) -> str:
    """What a request that took another's place is told of that one."""
    if at.job.args.get("busy") != "interrupt":
        return ""
    with connection() as conn:
        prompt = attempts.replaced_prompt(conn, at.job)
    return prompts.replaced(prompt) if prompt else ""
