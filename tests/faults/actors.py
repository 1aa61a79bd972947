"""What the simulated processes do, step by step: each `yield` lets others come between.

They are the shapes of worker/job/run.py, worker/job/lease.py and worker/relay.py without the agent
and the broker: the same functions of db, in the same order, with the same reactions.
"""

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from random import Random
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from db.core.codes import refusal
from db.jobs import jobs, rescue
from db.jobs.attempts import Claimed, Runner
from db.jobs.lanes import Message
from tests.faults.clock import Clock, moment
from tests.faults.compared import TRUSTED, Ledger
from tests.faults.ledger_rows import user_of
from tests.faults.simulation import WINDOW, Actor, Agent, Steps, World

WORKERS = ("worker 1", "worker 2", "worker 3")
RELAYS = ("relay 1", "relay 2")  # each on the host of the worker of its number
KINDS = ("build", "chat_plan")
BUSY = ("enqueue",) * 7 + ("reject", "replace", "interrupt")
ENDINGS = ("commit",) * 11 + ("skip", "fail", "retry", "retry", "drained", "limit", "limit")


def simulate(clock: Clock, seed: str, *, flaws: frozenset[str] = frozenset()) -> Ledger:
    """Play the history of that seed. Raises Broken."""
    rng = Random(seed)
    clock.now = 0
    w = World(Ledger(clock), rng, name=f"s{seed}", flaws=flaws)
    w.pids = {name: n for n, name in enumerate(WORKERS, start=1)}
    w.actors = [
        *(
            Actor(name, partial(_deliver, w, name), lambda: bool(w.queue), weight=4)
            for name in WORKERS
        ),
        *(Actor(name, partial(_relay, w, name), w.has_work) for name in RELAYS),
        Actor("producer", partial(_produce, w), once=True),
        Actor("operator", partial(_cancel, w), once=True),
        Actor("doctor", partial(_clear, w), lambda: bool(w.ledger.model.limits) and not w.calm),
    ]
    _ask(w)
    w.play(rng.randrange(8, 22))
    return w.ledger


def _runner(w: World, name: str) -> Runner:
    pid = w.pids[name]
    return Runner(f"{name}, {pid}", name, _boot(name), pid, pid, credential=_credential(w))


def _boot(name: str) -> str:
    """The host of a worker or relay."""
    return f"boot {name[-1]}"


def _credential(w: World) -> str:
    return f"key of {w.name}"


# Those who ask


def _produce(w: World) -> Steps:
    for _ in range(w.rng.choice((0, 0, 1, 1, 2))):
        _ask(w)
        yield


def _ask(w: World) -> None:
    job_id, rng = w.uuid(), w.rng
    project = f"{w.name}-{'ab'[rng.random() < 0.3]}"
    kind, busy = rng.choice(KINDS), rng.choice(BUSY)
    run_at = w.now + 20 if rng.random() < 0.1 else None
    send = partial(ask, w.ledger.conn, project, kind, job_id, busy, run_at)
    taken = w.ledger.enqueue(project, kind, job_id=job_id, send=send, busy=busy, run_at=run_at)
    if taken and w.happens(0.4):  # a producer with the broker rings
        w.publish(taken, "the producer")


def ask(
    conn: Connection,
    project: str,
    kind: str,
    job_id: UUID,
    busy: str = "enqueue",
    run_at: float | None = None,
) -> UUID | None:
    """Ask as producers in other languages do, by one statement; None if it is refused."""
    asked = {
        **dict.fromkeys(("version", "key", "previous_session_id", "error")),
        "kind": kind,
        "project": project,
        "user": user_of(project),
        "prompt": "make it",
        "busy": busy,
        "priority": 0,
        "options": Jsonb({}),
        "id": job_id,
        "prompt_limit": 1000,
        "run_at": None if run_at is None else moment(run_at),
    }
    try:
        row = conn.execute(jobs.ENQUEUE, asked).fetchone()
    except psycopg.DatabaseError as exc:
        if refusal(exc):
            return None
        raise
    return row[0] if row else None


def _cancel(w: World) -> Steps:
    yield
    if w.happens(0.15):
        w.ledger.cancel(w.rng.choice(list(w.ledger.model.jobs)))


def _clear(w: World) -> Steps:
    """The credential was tried, and it works again."""
    w.ledger.clear(_credential(w))
    yield


# Workers


def _deliver(w: World, me: str) -> Steps:
    """One message, from its receipt to its acknowledgement."""
    job_id, runner, asked = w.receive(me), _runner(w, me), w.now
    yield
    job = w.ledger.claim(job_id, w.uuid(), runner)
    if w.happens(0.03):
        w.ledger.tell(f"{me} does not hear the answer")
    elif job:
        yield from _attempt(w, job, runner.pid, asked + TRUSTED)
    else:
        yield from _not_claimed(w, job_id, runner)
    w.unacked.pop(me, None)


def _not_claimed(w: World, job_id: UUID, runner: Runner) -> Steps:
    if not w.ledger.model.jobs[job_id].waits:
        return
    if limit := w.ledger.standing(_credential(w)):
        yield
        w.ledger.park_waiting(job_id, limit)
    elif w.ledger.model.jobs[job_id].rescues:
        w.ledger.stand_back(job_id, runner)


def _attempt(w: World, job: Claimed, pid: int, trusted: float) -> Steps:
    """A turn, or two, and how they end."""
    yield
    if w.calm and not job.rescues and not w.ledger.model.jobs[job.id].turns:
        w.ledger.finish(job, "done")  # nobody has claimed it before: a turn would show nothing
        return
    steps = [f"compact:{w.uuid()}"] if w.happens(0.1) else []
    for step in (*steps, job.kind):
        minted = _left_by_the_dead(w, job, step)
        if minted is None:
            minted = str(w.uuid())
            if trusted <= w.now or not w.ledger.begin(job, step=step, minted=minted):
                return  # lost: nothing is written
            yield
            agent = w.spawn(job, pid, trusted)
            heard = yield from _watch(w, agent)
            trusted, agent.ended = agent.fed_until, True
            if heard == "lost":
                return
            if heard != "go on":
                w.ledger.finish(job, "cancelled")
                return
        yield
        if not (yield from _end(w, job, step, minted, final=step == job.kind)):
            return
        job = replace(job, head=minted)


def _left_by_the_dead(w: World, job: Claimed, step: str) -> str | None:
    """A turn of a dead attempt that had finished: it is committed, not run again."""
    turns = w.ledger.model.jobs[job.id].turns
    left = [m for m, turn in turns.items() if (turn.step, turn.outcome) == (step, "abandoned")]
    return left[-1] if left and w.happens(0.4) else None


def _watch(w: World, agent: Agent) -> Generator[None, None, str]:
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


def _end(
    w: World, job: Claimed, step: str, minted: str, *, final: bool
) -> Generator[None, None, bool]:
    """Write down how the turn went. Whether the attempt goes on."""
    messages: list[Message] | None = None
    match "commit" if w.calm else w.rng.choice(ENDINGS):
        case "commit":
            following = w.uuid() if final and job.kind == "build" and w.happens(0.4) else None
            messages = w.ledger.advance(
                job, step=step, minted=minted, final=final, following=following
            )
            if messages is None or w.happens(0.05):  # refused, or the answer was lost
                _commit_by_hand(w, job)
                _wait(w, job)
                return False
        case "skip":
            messages, final = w.ledger.finish(job, "done"), True
        case "fail":
            messages, final = w.ledger.finish(job, "failed"), True
        case "limit":
            until = w.ledger.impose(_credential(w), w.rng.choice((5, 40, None)))
            yield
            _wait(w, job, until=until, credential=_credential(w))
            return False
        case how:
            _wait(w, job, counted=how == "retry")
            return False
    for message in messages or ():
        yield
        w.publish(message.id, "its worker")
    return not final


def _wait(
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


def _commit_by_hand(w: World, job: Claimed) -> None:
    """A flaw: done by SQL that does not ask whose the job is now."""
    if "a commit by hand" in w.flaws:
        w.ledger.conn.execute(
            """
            update jobs set state = 'done', finished_at = now(), lease_until = null
             where id = %s and state = 'running'
            """,
            (job.id,),
        )


# Relays


def _relay(w: World, me: str) -> Steps:
    """One turn of its loop: rescue, look at the queue, take, send."""
    if any(job.state == "running" for job in w.ledger.model.jobs.values()):
        yield from _rescue(w, _boot(me))
    out = len(w.queue)
    waiting = 0 if "a relay that does not look" in w.flaws else out
    if w.happens(0.7):
        yield
    if waiting == 0 and not w.happens(0.7):
        w.ledger.recall()
    if waiting >= WINDOW:
        return
    due = w.ledger.take_due(WINDOW - waiting)
    out += len(due)
    w.ledger.demand(not due or out <= WINDOW, f"{out} messages are out, the window is {WINDOW}")
    for one in due:
        yield
        w.publish(one.id, me)


def _rescue(w: World, boot: str) -> Steps:
    if "a relay that does not rescue" in w.flaws:
        return
    dead, w.someone_died = w.someone_died, False
    for job_id, attempt, pid, _ in rescue.running_on(w.ledger.conn, boot) if dead else ():
        if pid in w.pids.values() or w.reap(attempt):
            continue
        yield
        w.ledger.rescue(job_id, attempt)
    for job_id in w.ledger.expired():
        yield
        w.ledger.rescue(job_id)
