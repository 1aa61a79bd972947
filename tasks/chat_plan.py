"""Answer a question about a project from its latest session; the head moves on with it."""

from typing import Any

from celery.app.task import Task

from worker.broker.app import app
from worker.job.attempt import Attempt
from worker.job.commit import Outcome
from worker.job.delivery import SHOWN, deliver, does
from worker.job.legs import conclude
from worker.job.step import Step
from worker.job.turn import run_turn


@app.task(name="tasks.chat_plan", bind=True, throws=SHOWN)
def chat_plan(self: Task[Any, Any], *given: Any, **asked: Any) -> str | None:
    """Wake the job `job_id`; or, from a plain producer, the request itself."""
    return deliver(self, "chat_plan", given, asked)


@does("chat_plan")
def do_chat_plan(at: Attempt) -> None:
    """One turn that reads only; question and answer go to the chat log."""
    prompt = str(at.job.args["prompt"])
    turn = run_turn(at, Step(name="chat_plan", prompt=prompt, mode="read"))
    conclude(
        at,
        turn,
        Outcome(
            step="chat_plan",
            source="chat_plan",
            said=[("user", prompt), ("assistant", turn.text)],
            result={"text": turn.text},
        ),
    )
