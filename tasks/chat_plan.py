"""Answer a question about a project from its latest session; the head moves on with it."""

from typing import Any

from celery.app.task import Task

from worker.app import app
from worker.chain import Attempt
from worker.commit import Outcome, commit
from worker.delivery import SHOWN, deliver, does
from worker.step import Step


@app.task(name="tasks.chat_plan", bind=True, throws=SHOWN)
def chat_plan(self: Task[Any, Any], *given: Any, **asked: Any) -> str | None:
    """Wake the job `job_id`; or, from a plain producer, the request itself."""
    return deliver(self, "chat_plan", given, asked)


@does("chat_plan")
def do_chat_plan(at: Attempt) -> None:
    """One turn that reads only; question and answer go to the chat log."""
    prompt = str(at.job.args["prompt"])
    turn = at.run(Step(name="chat_plan", prompt=prompt, mode="read"))
    commit(
        at,
        turn,
        Outcome(
            step="chat_plan",
            source="chat_plan",
            said=[("user", prompt), ("assistant", turn.text)],
            result={"text": turn.text},
        ),
    )
    at.checkpoint(turn)
