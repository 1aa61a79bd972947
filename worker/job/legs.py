"""The legs of a job, in the order that makes them safe.

leg that works    files made ready ──► turn ──► files taken in ──► commit ──► files kept, checkpoint
leg that reads                         turn ──────────────────────► commit ──► checkpoint
"""

from dataclasses import replace

from worker.agent import Turn
from worker.job import files
from worker.job.attempt import Attempt
from worker.job.commit import Outcome, checkpoint, commit
from worker.job.step import Step
from worker.job.turn import run_turn
from worker.workspace import workspace


class Work:
    """A leg that may write the workspace: `run`, `take_in`, `commit`, each once."""

    def __init__(self, at: Attempt) -> None:
        self._at = at
        self._begun = files.make_ready(at)
        self._made: workspace.Made | None = None

    def run(self, step: Step) -> Turn:
        return run_turn(self._at, step)

    def take_in(self) -> workspace.Made:
        """Make a commit of the files as they are now."""
        self._made = workspace.finish(self._at.job, self._begun)
        return self._made

    def commit(self, turn: Turn, outcome: Outcome) -> None:
        """Move the head with the files that were taken in. Raises HeadMoved."""
        made, job = self._made, self._at.job
        assert made, "take_in goes before"
        whole = replace(outcome, tree=made.commit, left_out=made.left_out)
        moved = commit(self._at, turn, whole)
        workspace.confirm(job, self._begun, made.commit, earlier=self._at.earlier)
        checkpoint(self._at, turn, moved)


def conclude(at: Attempt, turn: Turn, outcome: Outcome) -> None:
    """End a leg that only reads. Raises HeadMoved."""
    checkpoint(at, turn, commit(at, turn, outcome))
