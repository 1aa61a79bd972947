"""Build a project, change it, or mend it: one turn of the agent on the project's session; and the
check of what that made, if there is one (worker/job/proof.py)."""

from db.core.pool import connection
from db.jobs import attempts
from db.jobs.lanes import MAIN
from worker.job import proof, race, racer
from worker.job.attempt import Attempt
from worker.job.commit import Outcome
from worker.job.delivery import does
from worker.job.legs import Work
from worker.job.step import Step
from worker.session import prompts


@does("build")
def do_build(at: Attempt) -> None:
    """Let the agent do what the user asks, record the version it leaves, and check it."""
    if "race" in at.job.args:
        race.run_race(at, _of_the_replaced(at))
        return
    racer.check_open(at)
    commands = proof.commands(at)
    begins = "build" not in at.done
    if begins:
        _make(at, final=not commands)
    if commands or not begins:
        proof.prove(at, commands, here=begins)


def _make(at: Attempt, *, final: bool) -> None:
    """The turn, committed with its version. `final`: the job ends with it."""
    job = at.job
    work = Work(at)
    prompt = str(job.args["prompt"])
    repairs = job.args.get("asked") == "repair"
    asked = prompts.reported(prompt, job.args.get("about")) if repairs else prompt
    turn = work.run(Step(name="build", prompt=_of_the_replaced(at) + asked))
    made = work.take_in()
    version = job.version_id or str(job.chain_id) if job.lane == MAIN else None
    work.commit(
        turn,
        Outcome(
            step="build",
            source="recovery" if repairs else "update" if job.head else "build",
            reason="error_reported" if repairs else None,
            version=version,
            new_version=version is not None,
            final=final,
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
        return str(at.job.args.get("replaced", ""))
    with connection() as conn:
        prompt = attempts.replaced_prompt(conn, at.job)
    return prompts.replaced(prompt) if prompt else ""
