"""The session chain: go on from the head, run a turn, commit what came of it.

    begin ──► choose a session ──► record the try ──► turn ──► commit: the head moves
                    ▲                                   │
                    └── next candidate, compacted, or ──┘ fails
                        fresh with the digest, once each

A turn is committed whole or not at all. No transaction is open while the model thinks.
A failed turn leaves the head where it was; a retry is a new fork of the last good
session under a new id.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import structlog

from config.settings import settings
from db import chat, events, sessions, turns
from db.attempts import Claimed
from db.events import Event
from db.pool import connection
from worker import ladder, progress, prompts, workspace
from worker.agent import Agent, Request, Turn, Watch
from worker.agent.box import box
from worker.agent.store import JobStore
from worker.commit import Outcome, commit
from worker.errors import (
    AgentFailed,
    AttemptReplaced,
    CaptureIncomplete,
    Judgement,
    NotResumable,
    Stopped,
    Verdict,
    blames_session,
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
    begun: workspace.Begun | None = None

    def run(self, step: Step) -> Turn:
        """Run one turn on the best session there is. Raises what the last candidate raised."""
        while True:
            with connection() as conn:
                choice = ladder.choose(conn, self.job, barred=self.barred)
            self.choice = choice
            if choice.lost_head and not {Verdict.FRESH} & self.settled:
                self._tell_lost(choice)
            try:
                return self._run_on(step, choice)
            except Exception as exc:
                judgement = judge(exc, resumed=choice.parent is not None)
                if not self._goes_on(step, choice, judgement):
                    raise

    def _run_on(self, step: Step, choice: Choice) -> Turn:
        minted = uuid4()
        self._check_held()
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
            return self._spawn(step, request, store)
        except Exception as exc:
            self._record_failure(request, exc)
            raise

    def _spawn(self, step: Step, request: Request, store: JobStore) -> Turn:
        saw = progress.of_step(self.job, step.name)
        saw("turn.began", {"resumes": request.resume is not None})
        with self.lease.turn(box(self.cwd)) as leash:
            watch = Watch(
                saw=saw,
                alive=self.lease.alive,
                stopped=lambda: self.lease.stopped,
                end=leash.end,
                keeper_env=leash.environ,
            )
            turn = self.agent(request, store=store, watch=watch)
        saw("turn.ended", {"tokens": turn.context_tokens})
        return self._check_stored(turn)

    def _record_failure(self, request: Request, exc: Exception) -> None:
        judgement = judge(exc, resumed=request.resume is not None)
        log.warning(
            "turn.failed", error_class=judgement.error_class, verdict=judgement.verdict.value
        )
        raw = exc.raw_cost_usd if isinstance(exc, AgentFailed) else None
        with connection() as conn:
            turns.fail(
                conn,
                self.job,
                minted=str(request.minted),
                error_class=judgement.error_class,
                raw_cost_usd=raw,
            )

    def _goes_on(self, step: Step, choice: Choice, judgement: Judgement) -> bool:
        """Whether the attempt settles this failure itself, by another session."""
        parent, verdict = choice.parent, judgement.verdict
        if parent is None:
            return False
        if verdict is Verdict.NEXT:
            self._bar(parent, judgement.error_class)
            return True
        if verdict is Verdict.COMPACT and step.mode != "compact":
            return self._compact_or_fresh(parent, judgement)
        if verdict in (Verdict.FRESH, Verdict.COMPACT) and Verdict.FRESH not in self.settled:
            return self._go_fresh(judgement)
        if verdict is Verdict.RETRY and blames_session(judgement):
            self._count_against(parent, judgement)
        return False

    def _compact_or_fresh(self, parent: str, judgement: Judgement) -> bool:
        if Verdict.COMPACT not in self.settled and parent == self.job.head:
            self.settled.add(Verdict.COMPACT)
            if self.compact(reason=judgement.error_class):
                return True
        return Verdict.FRESH not in self.settled and self._go_fresh(judgement)

    def _go_fresh(self, judgement: Judgement) -> bool:
        """Bar every candidate, so that the ladder ends at a fresh session."""
        self.settled.add(Verdict.FRESH)
        with connection() as conn:
            for session in sessions.candidates(
                conn, self.job, user_id=self.job.user_id, handed=self.job.previous_session_id
            ):
                self.barred[session.session_id] = judgement.error_class
        assert self.choice
        self._tell_lost(replace(self.choice, reason=judgement.error_class))
        return True

    def _bar(self, session_id: str, reason: str) -> None:
        self.barred[session_id] = reason
        with connection() as conn:
            sessions.count_failure(conn, session_id, limit=settings().resume_failures)

    def _count_against(self, parent: str, judgement: Judgement) -> None:
        """The second failure from one parent, or an unknown one, counts against the session."""
        with connection() as conn:
            unknown = judgement.error_class in ("unknown", "internal_error")
            if unknown or turns.failures(conn, self.job.id, parent=parent) > 1:
                sessions.count_failure(conn, parent, limit=settings().resume_failures)

    def _retell(self, step: Step) -> str:
        """The prompt of a fresh session: what is known of the past, then the prompt itself."""
        if step.mode == "compact":
            raise NotResumable("nothing_to_compact")
        with connection() as conn:
            past = chat.past(conn, self.job.project_id)
        documentation = self.cwd / "DOCUMENTATION.md"
        text = (
            documentation.read_text(errors="replace")[:10_000]
            if documentation.is_file() and not documentation.is_symlink()
            else ""
        )
        return prompts.with_digest(
            prompts.digest(past, workspace.files(self.cwd), text), step.prompt
        )

    def _tell_lost(self, choice: Choice) -> None:
        """The head is not resumed: people are told why, and what they may choose (R028, R151)."""
        body = {
            "code": choice.reason,
            "text": LOST_SESSION,
            "choices": ["retry", "start_new"],
            "chain": str(self.job.chain_id),
        }
        self.tell([Event("session.resume_failed", self.job.id, body)])

    def tell(self, told: list[Event]) -> None:
        """Write events that tell of no change of the job's."""
        with connection() as conn:
            seq = events.append(conn, self.job.project_id, told)
        announce(self.job.project_id, seq, told, [])

    def begin_work(self) -> workspace.Begun:
        """Make the workspace ready to be written; tell what a lost attempt left there."""
        self.begun = workspace.begin(self.job, self.cwd)
        if self.begun.kept_aside:
            body = {"chain": str(self.job.chain_id), "ref": self.begun.kept_aside}
            self.tell([Event("workspace.kept_aside", self.job.id, body)])
        return self.begun

    def _check_stored(self, turn: Turn) -> Turn:
        """A head must never name a session that cannot be loaded on an empty machine."""
        with connection() as conn:
            reason, summary = ladder.look(conn, self.job.project_id, turn.session)
        if reason:
            raise CaptureIncomplete(f"The new session does not load: {reason}.")
        return replace(turn, summary=summary if turn.compacted else None)

    def _check_held(self) -> None:
        if self.lease.stopped:
            raise Stopped(self.lease.stopped)

    def compact(self, *, reason: str) -> bool:
        """Compact the head, as a committed turn of its own; whether the head is smaller now."""
        step = Step(name=f"compact:{uuid4().hex[:8]}", prompt="/compact", mode="compact")
        try:
            turn = self.run(step)
        except NotResumable:
            return False
        if not_compacted(turn):
            self.discard(turn, "not_compacted")
            return False
        commit(
            self, turn, Outcome(step=step.name, source="compact", reason=reason, final=False)
        )
        return True

    def discard(self, turn: Turn, why: str) -> None:
        """Keep a whole turn out of the chain: it is recorded as failed, the head stays."""
        with connection() as conn:
            turns.fail(
                conn,
                self.job,
                minted=turn.minted,
                error_class=why,
                raw_cost_usd=turn.raw_cost_usd,
            )


def not_compacted(turn: Turn) -> str | None:
    """Why a compaction does not count: no boundary was seen, or the context is no smaller (R155)."""
    if not turn.compacted:
        return "not_compacted"
    if turn.pre_tokens is not None and turn.post_tokens is not None:
        return None if turn.post_tokens < turn.pre_tokens else "not_smaller"
    return None
