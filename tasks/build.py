"""Build a project, or change it: one turn of the agent on the project's session."""

from db.core.pool import connection
from db.jobs import attempts
from db.jobs.lanes import MAIN
from worker.job.attempt import Attempt
from worker.job.commit import Outcome
from worker.job.delivery import does
from worker.job.legs import Work
from worker.job.step import Step
from worker.session import prompts


@does("build")
def do_build(at: Attempt) -> None:
    """Let the agent do what the user asks, and record the version it leaves."""
    job = at.job
    work = Work(at)
    prompt = str(job.args["prompt"])
    turn = work.run(Step(name="build", prompt=_of_the_replaced(at) + prompt))
    made = work.take_in()
    version = job.version_id or str(job.chain_id) if job.lane == MAIN else None
    work.commit(
        turn,
        Outcome(
            step="build",
            source="update" if job.head else "build",
            version=version,
            new_version=version is not None,
            said=[("user", prompt), ("assistant", turn.text)],
            result={
                "text": turn.text,
                "files_created": made.created,
                "files_created_count": made.created_count,
            },
        ),
    )


def _of_the_replaced(at: Attempt) -> str:
    """What a request that took another's place is told of that one."""
    if at.job.args.get("busy") != "interrupt":
        return ""
    with connection() as conn:
        prompt = attempts.replaced_prompt(conn, at.job)
    return prompts.replaced(prompt) if prompt else ""
