"""One turn of a simulated worker: begun, watched, committed or not; each `yield` lets others come between."""

from collections.abc import Generator
from dataclasses import replace
from uuid import UUID

from db.jobs.attempts import Claimed
from db.jobs.lanes import Message
from tests.faults.compared import TRUSTED
from tests.faults.simulation import Agent, Steps, World

ENDINGS = ("commit",) * 11 + ("skip", "fail", "retry", "retry", "drained", "limit", "limit")


def credential_of(w: World) -> str:
    return f"key of {w.name}"


def turn(
    w: World, job: Claimed, step: str, pid: int, trusted: float, *, final: bool
) -> Generator[None, None, tuple[Claimed, float] | None]:
    """A turn to its commit: the job as it goes on from there, and until when its lease is trusted.
    None: the attempt is over."""
    minted = left_by_the_dead(w, job, step)
    if minted is None:
        minted = str(w.uuid())
        if trusted <= w.now or not w.ledger.begin(job, step=step, minted=minted):
            return None  # lost: nothing is written
        yield
        if (until := (yield from run(w, job, pid, trusted))) is None:
            return None
        trusted = until
    yield
    if not (yield from end(w, job, step, minted, final=final)):
        return None
    return replace(job, head=minted), trusted


def run(
    w: World, job: Claimed, pid: int, trusted: float
) -> Generator[None, None, float | None]:
    """An agent, or a command of a check, under its keeper: until when the lease is trusted. None: the
    attempt is over."""
    agent = w.spawn(job, pid, trusted)
    heard = yield from watch(w, agent)
    agent.ended = True
    if heard == "lost":
        return None
    if heard != "go on":
        w.ledger.finish(job, "cancelled")
        return None
    return agent.fed_until


def left_by_the_dead(w: World, job: Claimed, step: str) -> str | None:
    """A turn of a dead attempt that had finished: it is committed, not run again."""
    turns = w.ledger.model.jobs[job.id].turns
    left = [m for m, turn in turns.items() if (turn.step, turn.outcome) == (step, "abandoned")]
    return left[-1] if left and w.happens(0.4) else None


def watch(w: World, agent: Agent) -> Generator[None, None, str]:
    """While the agent runs: renew, feed it, and hear what is wanted."""
    for _ in range(0 if w.calm else w.rng.choice((0, 0, 1, 2))):
        yield
        asked = w.now
        if w.happens(0.3):
            yield  # the question is on its way
        renews = w.happens(0.7)
        heard = w.ledger.renew(agent.job) if renews else w.ledger.wanted(agent.job)
        if heard is None:
            return "lost"
        if heard != "go on":
            return heard
        if renews:  # to hear what is wanted makes no lease longer
            w.feed(agent, asked + TRUSTED)
    return "go on" if w.lives(agent) else "lost"


def end(
    w: World, job: Claimed, step: str, minted: str, *, final: bool
) -> Generator[None, None, bool]:
    """Write down how the turn went. Whether the attempt goes on."""
    messages: list[Message] | None = None
    match "commit" if w.calm else w.rng.choice(ENDINGS):
        case "commit":
            following = next_of(w, job) if final else None
            messages = w.ledger.advance(
                job, step=step, minted=minted, final=final, following=following
            )
            if messages is None or w.happens(0.05):  # refused, or the answer was lost
                commit_by_hand(w, job)
                wait(w, job)
                return False
        case "skip" if "racer" not in job.args:
            messages, final = w.ledger.finish(job, "done"), True
        case "skip" | "fail":
            messages, final = w.ledger.finish(job, "failed"), True
        case "limit":
            until = w.ledger.impose(credential_of(w), w.rng.choice((5, 40, None)))
            yield
            wait(w, job, until=until, credential=credential_of(w))
            return False
        case how:
            wait(w, job, counted=how == "retry")
            return False
    yield from ring(w, messages)
    return not final


def next_of(w: World, job: Claimed) -> UUID | None:
    """What follows the job in its chain."""
    follows = job.kind == "build" and job.lane == "main"
    return w.uuid() if follows and w.happens(0.4) else None


def ring(w: World, messages: list[Message] | None) -> Steps:
    """Whoever commits sends for what is next."""
    for message in messages or ():
        yield
        w.publish(message.id, "its worker")


def wait(
    w: World,
    job: Claimed,
    *,
    until: float | None = None,
    counted: bool = False,
    credential: str | None = None,
) -> None:
    """Let the job wait; cancelled if that cannot be: as worker/job/run.py does it."""
    run_at = w.now + w.rng.choice((0, 3, 15)) if until is None else until
    if not w.ledger.put_back(job, run_at=run_at, counted=counted, credential=credential):
        w.ledger.finish(job, "cancelled")


def commit_by_hand(w: World, job: Claimed) -> None:
    """A flaw: done by SQL that does not ask whose the job is now."""
    if "a commit by hand" in w.flaws:
        w.ledger.conn.execute(
            """
            update jobs set state = 'done', finished_at = now(), lease_until = null
             where id = %s and state = 'running'
            """,
            (job.id,),
        )
