"""Answer a question about a project from its latest session; the head moves on with it."""

from typing import Any

from celery.app.task import Task

from worker.app import app
from worker.chain import Attempt, Step
from worker.commit import Outcome, commit
from worker.delivery import deliver


@app.task(name="tasks.chat_plan", bind=True)
def chat_plan(
    self: Task[Any, Any],
    project_id: str | None = None,
    user_id: str | None = None,
    prompt: str | None = None,
    key: str | None = None,
    *,
    previous_session_id: str | None = None,
    job_id: str | None = None,
) -> None:
    """Wake the job `job_id`; or, from a plain producer, the request itself."""
    asked = {
        "project_id": project_id,
        "user_id": user_id,
        "prompt": prompt,
        "previous_session_id": previous_session_id,
        "key": key,
    }
    deliver(self, "chat_plan", do_chat_plan, job_id, asked)


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
