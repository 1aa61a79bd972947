"""An attempt at a job: what is held while it runs, and what is known so far.

The functions that take one (`at`) are, in the order in which a job meets them: files.provide,
turn.run_turn, commit.commit; or endings.write, where it comes to nothing.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import structlog

from db.core import events
from db.core.events import Event
from db.core.pool import connection
from db.jobs.attempts import Claimed
from worker.agent import Agent, Turn
from worker.broker.publish import announce
from worker.job.lease import Lease
from worker.session.ladder import Choice
from worker.session.recovery import Left
from worker.workspace import workspace

log = structlog.get_logger()

LOGGED = ("what", "why", "code")  # of an event's body


@dataclass
class Attempt:
    """One try at a job. `job.head` moves with each commit."""

    job: Claimed
    lease: Lease
    agent: Agent
    cwd: Path
    done: set[str]  # steps that are committed already
    earlier: set[UUID] = field(default_factory=set[UUID])  # attempts that began a turn
    left: Left | None = None  # of the attempt before, until a turn has made use of it
    begun: workspace.AsFound | None = None
    choice: Choice | None = None
    pending: Turn | None = None  # whole, and not committed yet
    barred: dict[str, str] = field(default_factory=dict[str, str])  # sessions, with the reason
    fresh: str | None = None  # why this step goes on from no session
    compacted: bool = False  # the head, or in vain, for this step
    told_lost: bool = False

    def go_to(self, head: str, tree: str | None) -> None:
        """The head was moved elsewhere by the job itself."""
        self.job = replace(self.job, head=head, tree=tree)

    def tell(self, told: Event) -> None:
        """Write an event that tells of no change of the job's."""
        log.info(told.type, **{name: told.body[name] for name in LOGGED if name in told.body})
        with connection() as conn:
            written = events.append(conn, self.job.project_id, [told])
        announce(self.job.project_id, written, [])
