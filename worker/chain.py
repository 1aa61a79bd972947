"""The session chain: go on from the head, run a turn, commit what came of it.

    begin ──► choose a session ──► record the try ──► turn ──► commit: the head moves
                    ▲                                   │
                    └── next candidate, compacted, or ──┘ fails
                        fresh with the digest (worker/settle.py)

A turn is committed whole or not at all. No transaction is open while the model thinks.
A failed turn leaves the head where it was; a retry is a new fork of the last good
session under a new id.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import structlog

from db import chat, events, registry, turns
from db.attempts import Claimed
from db.events import Event
from db.pool import connection
from worker import checkpoints, ladder, points, progress, prompts, settle, workspace
from worker.agent import Agent, Request, Turn, Watch
from worker.agent.box import box, own_directory
from worker.agent.leash import cli
from worker.agent.store import JobStore
from worker.checkpoints import Checkpoint
from worker.commit import Outcome, about, commit
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

log = structlog.get_logger()

LOST_SESSION = "Previous session not found. Starting fresh session..."  # R028, for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One turn of a job: its name in the ledger, what is asked, and how the agent may work."""

    name: str
    prompt: str
    mode: Literal["work", "read", "compact"] = "work"
    schema: dict[str, Any] | None = None
    model: str | None = None


@dataclass
class Attempt:
    """One try at a job: the head as it moves, the candidates that failed, what is held."""

    job: Claimed
    lease: Lease
    agent: Agent
    cwd: Path
    done: set[str]  # steps that are committed already
    barred: dict[str, str] = field(default_factory=dict[str, str])
    settled: set[Verdict] = field(default_factory=set[Verdict])  # COMPACT and FRESH, once each
    choice: Choice | None = None
    pending: Turn | None = None  # whole, and not committed yet
    told_lost: bool = False

    def run(self, step: Step) -> Turn:
        """Run one turn on the best session there is. Raises what the last candidate raised."""
        while True:
            choice = self.choice = self._choose(step)
            try:
                self.pending = self._run_on(step, choice)
            except Exception as exc:
                judgement = judge(exc, resumed=choice.parent is not None)
                if not settle.goes_on(self, step, choice, judgement):
                    raise
            else:
                return self.pending

    def _choose(self, step: Step) -> Choice:
        """The ladder's choice, unless this step cannot go on with it."""
        with connection() as conn:
            choice = ladder.choose(conn, self.job, barred=self.barred)
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

    def _run_on(self, step: Step, choice: Choice) -> Turn:
        minted = uuid4()
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
            ):
                raise AttemptReplaced("The job was taken over before the turn began.")
        points.reach("turn.recorded")
        request = Request(
            prompt=step.prompt if choice.parent else self._retell(step),
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
        )
        try:
            return self._checked(self._spawn(step, request, store), choice)
        except Exception as exc:
            self._record_failure(request, exc)
            raise

    def _spawn(self, step: Step, request: Request, store: JobStore) -> Turn:
        saw = progress.of_step(self.job, step.name)
        saw("turn.began", {"resumes": request.resume is not None})
        command = box(
            self.cwd,
            own=own_directory(request.minted),
            cli=Path(cli()),
            writable=step.mode == "work",
        )
        with self.lease.turn(command) as leash:
            watch = Watch(
                saw=saw,
                alive=self.lease.alive,
                stopped=self.lease.reason,
                end=leash.end,
                keeper_env=leash.environ,
            )
            turn = self.agent(request, store=store, watch=watch)
        saw("turn.ended", {"tokens": turn.context_tokens})
        return turn

    def _checked(self, turn: Turn, choice: Choice) -> Turn:
        """A head must never name a session that cannot be loaded on an empty machine."""
        with connection() as conn:
            if turn.session not in (turn.minted, turn.parent) and registry.known(
                conn, turn.session
            ):
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

    def _record_failure(self, request: Request, exc: Exception) -> None:
        judgement = judge(exc, resumed=request.resume is not None)
        log.warning(
            "turn.failed", error_class=judgement.error_class, verdict=judgement.verdict.value
        )
        with connection() as conn:
            turns.fail(
                conn,
                self.job,
                minted=str(request.minted),
                error_class=judgement.error_class,
                raw_cost_usd=exc.raw_cost_usd if isinstance(exc, JobError) else None,
                weight=exc.weight if isinstance(exc, JobError) else 0,
            )

    def _retell(self, step: Step) -> str:
        """The prompt of a fresh session: what is known of the past, then the prompt itself."""
        with connection() as conn:
            past = chat.past(conn, self.job.project_id)
        if self.job.head is None and not past.said:
            return step.prompt  # the project's first words
        digest = prompts.digest(
            past, workspace.files(self.cwd), workspace.read(self.cwd, "DOCUMENTATION.md")
        )
        return prompts.with_digest(digest, step.prompt)

    def _tell_lost(self, reason: str | None) -> None:
        """People are told that the session is lost, why, and what they may choose (R028, R151)."""
        if self.told_lost:
            return
        self.told_lost = True
        body = {
            **about(self.job),
            "code": reason,
            "text": LOST_SESSION,
            "choices": ["retry", "start_new"],
        }
        self.tell([Event("session.resume_failed", self.job.id, body)])

    def tell(self, told: list[Event]) -> None:
        """Write events that tell of no change of the job's."""
        with connection() as conn:
            seq = events.append(conn, self.job.project_id, told)
        announce(self.job.project_id, seq, told, [])

    def begin_work(self) -> workspace.Begun:
        """Make the workspace ready to be written; tell what a lost attempt left there."""

        def committed(tree: str) -> bool:
            with connection() as conn:
                return turns.is_of_version(conn, self.job.project_id, tree)

        begun = workspace.begin(self.job, self.cwd, committed=committed)
        points.reach("workspace.begun")
        if begun.kept_aside:
            body = {**about(self.job), "ref": begun.kept_aside}
            self.tell([Event("workspace.kept_aside", self.job.id, body)])
        return begun

    def compact(self, *, reason: str) -> bool:
        """Compact the head, as a committed turn of its own; whether the head is smaller now."""
        step = Step(name=f"compact:{uuid4().hex[:8]}", prompt="/compact", mode="compact")
        try:
            turn = self.run(step)
        except NotResumable:
            return False
        except JobError as exc:
            if judge(exc, resumed=True).verdict in (Verdict.COMPACT, Verdict.FRESH):
                return False  # too long to be compacted, or refused: a fresh session is left
            raise
        if why := not_compacted(turn):
            self.discard(why)
            return False
        commit(
            self, turn, Outcome(step=step.name, source="compact", reason=reason, final=False)
        )
        return True

    def discard(self, why: str) -> None:
        """Keep the turn that is pending, if one is, out of the chain: the head stays."""
        turn, self.pending = self.pending, None
        if turn is None:
            return
        with connection() as conn:
            turns.fail(
                conn,
                self.job,
                minted=turn.minted,
                error_class=why,
                raw_cost_usd=turn.raw_cost_usd,
            )

    def checkpoint(self, turn: Turn) -> None:
        """Write where the chain has got to into Redis, with the files that its build made."""
        chain = self.job.chain_id
        with connection() as conn:
            created = turns.files_created(conn, chain)
        checkpoints.save(chain, Checkpoint(turn.session, str(chain), str(self.cwd), created))
        points.reach("checkpoint.saved")


def not_compacted(turn: Turn) -> str | None:
    """Why a compaction does not count: no boundary was seen, or the context is no smaller (R155)."""
    if not turn.compacted:
        return "not_compacted"
    if turn.pre_tokens is not None and turn.post_tokens is not None:
        return None if turn.post_tokens < turn.pre_tokens else "not_smaller"
    return None


def _incomplete(text: str, turn: Turn) -> JobError:
    exc = NoRoom(text) if turn.no_room else CaptureIncomplete(text)
    exc.raw_cost_usd = turn.raw_cost_usd
    return exc
