"""The session chain: go on from the head, run a turn, commit what came of it.

    begin ──► choose a session ──► record the try ──► turn ──► commit: the head moves
                    ▲                                   │
                    └── next candidate, compacted, or ──┘ fails
                        fresh with the digest (worker/settle.py)

A turn is committed whole or not at all. No transaction is open while the model thinks.
A failed turn leaves the head where it was; a retry is a new fork of the last good
session under a new id.
"""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID, uuid4

import structlog
from psycopg_pool import PoolTimeout

from config.settings import settings
from db import events, projects, registry, turns
from db.attempts import Claimed
from db.events import Event
from db.pool import POSTGRES_AWAY, connection
from worker import (
    checkpoints,
    digest,
    fence,
    ladder,
    points,
    progress,
    prompts,
    recovery,
    remains,
    settle,
    telling,
    workspace,
)
from worker.agent import Agent, Request, Turn, Watch
from worker.agent.box import box
from worker.agent.home import own_directory
from worker.agent.leash import cli
from worker.agent.store import JobStore
from worker.checkpoints import Checkpoint
from worker.compaction import compact
from worker.errors import (
    AnswerNeeded,
    AttemptReplaced,
    CaptureIncomplete,
    JobError,
    NoRoom,
    NotResumable,
    Stopped,
    Verdict,
    judge,
)
from worker.ladder import Choice
from worker.lease import Lease
from worker.publish import announce
from worker.recovery import Left
from worker.step import Step
from worker.weigh import Way

log = structlog.get_logger()


@dataclass
class Attempt:
    """One try at a job: the head as it moves, the candidates that failed, what is held."""

    job: Claimed
    lease: Lease
    agent: Agent
    cwd: Path
    done: set[str]  # steps that are committed already
    barred: dict[str, str] = field(default_factory=dict[str, str])
    remedies: set[Verdict] = field(
        default_factory=set[Verdict]
    )  # tried in this step: COMPACT and FRESH, each once
    choice: Choice | None = None
    pending: Turn | None = None  # whole, and not committed yet
    told_lost: bool = False
    left: Left | None = None  # of the attempt before, until a turn has made use of it
    begun: workspace.AsFound | None = None
    earlier: set[UUID] = field(default_factory=set[UUID])  # attempts that began a turn

    def run(self, step: Step) -> Turn:
        """Run one turn on the best session there is. Raises what the last candidate raised."""
        if step.mode != "compact":
            self.remedies.clear()
        left = self._take_left(step)
        if left and (turn := recovery.finished(left, structured=step.schema is not None)):
            self.tell(telling.recovered(self.job, left, "finished", left.why))
            self.choice = recovery.as_begun(left.begun)
            self.pending = turn
            return turn
        choice = self._go_on(left) if left else self._choose(step)
        while True:
            self.choice = choice
            try:
                self.pending = self._run_on(step, choice)
            except Exception as exc:
                judgement = judge(exc, resumed=choice.parent is not None)
                if not settle.goes_on(self, step, choice, judgement):
                    raise
            else:
                return self.pending
            choice = self._choose(step)

    def _take_left(self, step: Step) -> Left | None:
        """What the attempt before left of this very step, if it is of use."""
        left, self.left = self.left, None
        if left is None:
            return None
        lost = left.lost or (None if left.begun.step == step.name else "other_step")
        if lost:
            self.tell(telling.recovered(self.job, left, "lost", lost))
        return None if lost else left

    def _go_on(self, left: Left) -> Choice:
        with connection() as conn:
            choice = recovery.go_on(conn, self.job, left)
        self.tell(telling.recovered(self.job, left, "partial", left.why))
        return choice

    def _choose(self, step: Step) -> Choice:
        """The ladder's choice, unless this step cannot go on with it."""
        with connection() as conn:
            choice = ladder.choose(
                conn,
                self.job,
                barred=self.barred,
                ways=self._ways(step),
                restructured=self.begun.restructured if self.begun else 0.0,
            )
        if choice.weighed:
            self.tell(telling.weighed(self.job, choice.weighed))
            if choice.weighed.way == "compact":
                self.remedies.add(Verdict.COMPACT)
                compact(self, reason=choice.weighed.why)
                return self._choose(step)
        refused: JobError | None = None
        if step.mode == "compact" and choice.parent != self.job.head:
            refused = NotResumable(choice.reason or "no_session")
        elif choice.lost_head:
            self._tell_lost(choice.reason)
            if ladder.wants_to_be_asked(self.job):
                refused = AnswerNeeded(choice.reason)
        if refused:
            with connection() as conn:
                turns.note_rejected(conn, self.job, step=step.name, tries=choice.tries)
            raise refused
        return choice

    def _ways(self, step: Step) -> tuple[Way, ...]:
        """How a head of too many turns may be gone on from: it is compacted once at the most."""
        if step.mode == "compact":
            return ()
        if Verdict.COMPACT in self.remedies or settings().compact == "never":
            return ("fresh",)
        return ("compact", "fresh")

    def _run_on(self, step: Step, choice: Choice) -> Turn:
        minted = uuid4()
        self.lease.excuse()
        if reason := self.lease.reason():
            raise Stopped(reason)
        with connection() as conn:
            if not turns.begin(
                conn,
                self.job,
                step=step.name,
                parent=choice.parent,
                minted=str(minted),
                tries=choice.tries,
                source=choice.source,
                reason=choice.reason,
            ):
                raise AttemptReplaced("The job was taken over before the turn began.")
        points.reach("turn.recorded")
        request = Request(
            prompt=self._prompt(step, choice),
            minted=minted,
            resume=choice.parent,
            cwd=self.cwd,
            mode=step.mode,
            schema=step.schema,
            model=self.job.args.get("model") or step.model,
            max_turns=self.job.args.get("max_turns"),
            budget_usd=self.job.args.get("budget"),
            attempt=self.job.attempt,
        )
        store = JobStore(
            self.job.project_id,
            job_id=self.job.id,
            attempt=self.job.attempt,
            parent=(choice.parent, choice.entries) if choice.parent else None,
            template=choice.template,
        )
        turn: Turn | None = None
        try:
            turn = self._spawn(step, request, store)
            turn = self._checked(turn, choice)
            step.accept(turn)
        except Exception as exc:
            self._record_failure(request, exc, turn)
            raise
        return turn

    def _spawn(self, step: Step, request: Request, store: JobStore) -> Turn:
        saw = progress.of_step(self.job, step.name)
        saw("turn.began", {"resumes": request.resume is not None})
        around = box(
            self.cwd,
            own=own_directory(request.minted),
            cli=Path(cli()),
            writable=step.mode == "work",
        )
        progress.note_silence(self.job.id, 0.0)
        with self.lease.turn(around) as leash:
            watch = Watch(
                saw=saw,
                alive=self.lease.alive,
                stopped=self.lease.reason,
                end=leash.end,
                keeper_env=leash.environ,
            )
            try:
                turn = self.agent(request, store=store, watch=watch)
            finally:
                progress.note_silence(self.job.id, None)
        saw("turn.ended", {"tokens": turn.context_tokens})
        return turn

    def _checked(self, turn: Turn, choice: Choice) -> Turn:
        """A head must never name a session that cannot be loaded on an empty machine."""
        with connection() as conn:
            given = turn.session in (turn.minted, turn.parent)
            if not given and registry.get(conn, turn.session):
                raise _incomplete("The agent named a session that it was not given.", turn)
            found = ladder.look(conn, self.job.project_id, turn.session)
        if found.reason:
            raise _incomplete(f"The new session does not load: {found.reason}.", turn)
        if turn.compacted:
            return replace(turn, summary=found.summary)
        if choice.parent and not ladder.shares(choice.entries, found.entries):
            log.warning("session.reset_by_agent")
            self._tell_lost(ladder.AGENT_RESET)
            return replace(turn, relation="reset", parent=None)
        return turn

    def _record_failure(self, request: Request, exc: Exception, turn: Turn | None) -> None:
        """`turn`: it went to its end and is of no use; it was paid for all the same."""
        judgement = judge(exc, resumed=request.resume is not None)
        log.warning(
            "turn.failed", error_class=judgement.error_class, verdict=judgement.verdict.value
        )
        if judgement.verdict is Verdict.LOST:
            return  # it is another's by now: whoever takes it over looks at what is there
        told = turn or (exc if isinstance(exc, JobError) else JobError())
        with contextlib.suppress(*POSTGRES_AWAY, PoolTimeout), connection() as conn:
            turns.fail(
                conn,
                self.job,
                minted=str(request.minted),
                error_class=judgement.error_class,
                raw_cost_usd=told.raw_cost_usd,
                weight=told.weight,
                cli_version=told.cli_version,
            )

    def _prompt(self, step: Step, choice: Choice) -> str:
        if choice.source == ladder.RECOVERY:
            return prompts.go_on(step.prompt)
        return step.prompt if choice.parent else digest.retell(self.job, self.cwd, step.prompt)

    def _tell_lost(self, reason: str | None) -> None:
        """People are told once an attempt that the session is lost."""
        if self.told_lost:
            return
        self.told_lost = True
        self.tell(telling.resume_failed(self.job, reason))

    def tell(self, told: Event) -> None:
        """Write an event that tells of no change of the job's."""
        log.info(
            told.type, **{k: v for k, v in told.body.items() if k in ("what", "why", "code")}
        )
        with connection() as conn:
            written = events.append(conn, self.job.project_id, [told])
        announce(self.job.project_id, written, [])

    def provide(self) -> None:
        """Bring the project's files here as the ledger has them; tell what had to make way."""
        if remains.doubtful(self.job.project_id, self.job.tree):
            with connection() as conn:
                remains.clear(conn, self.job.project_id)

        def committed(tree: str) -> bool:
            with connection() as conn:
                return projects.has_tree(conn, self.job.project_id, tree)

        for ref in workspace.provide(self.job, committed=committed):
            self._tell_kept_aside(ref)

    def begin_work(self) -> workspace.AsFound:
        """Make the workspace ready to be written; tell what a lost attempt left there."""
        left = self.left if self.left and not self.left.lost else None
        after = left.begun.attempt if left else None
        begun = self.begun = workspace.begin(self.job, self.cwd, after=after)
        if left and not begun.went_on:
            self.left = replace(left, lost="workspace_elsewhere")
        points.reach("workspace.begun")
        self._tell_kept_aside(begun.kept_aside)
        return begun

    def go_back(self) -> None:
        """What was gone on from is of no use after all: its files are put aside as well."""
        if self.begun:
            self._tell_kept_aside(workspace.go_back(self.job, self.begun))

    def _tell_kept_aside(self, ref: str | None) -> None:
        if ref:
            self.tell(telling.kept_aside(self.job, ref))

    def discard(self, why: str) -> None:
        """Keep the turn that is pending, if one is, out of the chain: the head stays."""
        turn, self.pending = self.pending, None
        if turn is None:
            return
        with connection() as conn:
            if self.choice and self.choice.finished:
                turns.give_up(conn, self.job, minted=turn.minted, error_class=why)
                return
            turns.fail(
                conn,
                self.job,
                minted=turn.minted,
                error_class=why,
                raw_cost_usd=turn.raw_cost_usd,
            )

    def checkpoint(self, turn: Turn) -> None:
        """Write where the chain has got to into Redis, with the files that its build made."""
        fence.check()
        chain = self.job.chain_id
        with connection() as conn:
            created = turns.files_created(conn, chain)
        checkpoints.save(chain, Checkpoint(turn.session, str(chain), str(self.cwd), created))
        points.reach("checkpoint.saved")


def _incomplete(text: str, turn: Turn) -> JobError:
    return NoRoom(text) if turn.no_room else CaptureIncomplete(text)
