"""Answer a question about a project from its latest session; the head moves on with it."""

from worker.job.attempt import Attempt
from worker.job.commit import Outcome
from worker.job.delivery import does
from worker.job.legs import conclude
from worker.job.step import Step
from worker.job.turn import run_turn


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
