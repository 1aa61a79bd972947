"""What the simulated processes do, step by step: each `yield` lets others come between.

They are the shapes of worker/job/run.py, worker/job/lease.py and worker/relay.py without the agent
and the broker: the same functions of db, in the same order, with the same reactions. A turn: turns.py;
checks and races: proofs.py.
"""

from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from db.core.codes import refusal
from db.jobs import jobs, rescue
from db.jobs.attempts import Claimed, Runner
from tests.faults.clock import Clock, moment
from tests.faults.compared import TRUSTED, Ledger
from tests.faults.ledger_rows import user_of
from tests.faults.proofs import prove, race
from tests.faults.simulation import WINDOW, Actor, Steps, World
from tests.faults.turns import credential_of, turn

WORKERS = ("worker 1", "worker 2", "worker 3")
RELAYS = ("relay 1", "relay 2")  # each on the host of the worker of its number
KINDS = ("build", "chat_plan")
BUSY = ("enqueue",) * 7 + ("reject", "replace", "interrupt")
# What a build is asked with, beside its prompt.
PLAIN: dict[str, Any] = {}
CHECKED: dict[str, Any] = {"check": "make test", "check_tries": 1}
RACE = CHECKED | {"race": 2}
OPTIONS = (*(PLAIN,) * 6, CHECKED, RACE)
OF_RACES = 0.1  # of the histories have a race, and take longer


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
        Actor("another operator", partial(_rewind, w), lambda: _races(w), once=True),
        Actor("doctor", partial(_clear, w), lambda: bool(w.ledger.model.limits) and not w.calm),
    ]
    if rng.random() < OF_RACES:
        for options in (PLAIN, PLAIN, RACE):
            _ask(w, kind="build", busy="enqueue", options=options)
        w.play(rng.randrange(80, 160))
    else:
        _ask(w)
        w.play(rng.randrange(8, 22))
    return w.ledger


def _runner(w: World, name: str) -> Runner:
    pid = w.pids[name]
    return Runner(f"{name}, {pid}", name, _boot(name), pid, pid, credential=credential_of(w))


def _boot(name: str) -> str:
    """The host of a worker or relay."""
    return f"boot {name[-1]}"


# Those who ask


def _produce(w: World) -> Steps:
    for _ in range(w.rng.choice((0, 0, 1, 1, 2))):
        _ask(w)
        yield


def _ask(w: World, **fixed: Any) -> None:
    job_id, rng = w.uuid(), w.rng
    some = OPTIONS if w.ledger.model.jobs else OPTIONS[:-1]  # the very first can be no race
    asked: dict[str, Any] = {
        "kind": rng.choice(KINDS),
        "busy": rng.choice(BUSY),
        "run_at": w.now + 20 if rng.random() < 0.1 else None,
        "options": rng.choice(some),
        "project": f"{w.name}-{'ab'[rng.random() < 0.3]}",
    }
    if fixed:  # of a history of races
        asked |= {"run_at": None, "project": f"{w.name}-a"} | fixed
    kind, busy, run_at, options, project = asked.values()
    options = options if kind == "build" else PLAIN
    send = partial(ask, w.ledger.conn, project, kind, job_id, busy, run_at, options)
    given = {"busy": busy, "run_at": run_at, "race": "race" in options}
    taken = w.ledger.enqueue(project, kind, job_id=job_id, send=send, **given)
    if taken and w.happens(0.4):  # a producer with the broker rings
        w.publish(taken, "the producer")


def ask(
    conn: Connection,
    project: str,
    kind: str,
    job_id: UUID,
    busy: str = "enqueue",
    run_at: float | None = None,
    options: dict[str, Any] = PLAIN,
) -> UUID | None:
    """Ask as producers in other languages do, by one statement; None if it is refused."""
    asked: dict[str, Any] = {
        **dict.fromkeys(("version", "key", "previous_session_id", "error")),
        "kind": kind,
        "project": project,
        "user": user_of(project),
        "prompt": "make it",
        "busy": busy,
        "priority": 0,
        "options": Jsonb(options),
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


def _rewind(w: World) -> Steps:
    """The head goes back while a race is run, if no job is: a race that waits hinders nobody."""
    yield
    (project, *_) = {job.project for job in w.ledger.model.jobs.values() if job.race}
    if w.happens(0.5):
        w.ledger.rewind(project, w.ledger.model.projects[project].heads[0])


def _races(w: World) -> bool:
    return any(job.race for job in w.open_jobs())


def _clear(w: World) -> Steps:
    """The credential was tried, and it works again."""
    w.ledger.clear(credential_of(w))
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
    if limit := w.ledger.standing(credential_of(w)):
        yield
        w.ledger.park_waiting(job_id, limit)
    elif w.ledger.model.jobs[job_id].rescues:
        w.ledger.stand_back(job_id, runner)


def _attempt(w: World, job: Claimed, pid: int, trusted: float) -> Steps:
    """A turn, or two, and how they end; a check of what they made; or a race."""
    yield
    ours = w.ledger.model.jobs[job.id]
    if w.calm and not job.rescues and not ours.turns and "check" not in job.args:
        w.ledger.finish(job, "done")  # nobody has claimed it before: a turn would show nothing
        return
    if "race" in job.args:
        yield from race(w, job)
        return
    if w.ledger.model.race_is_over(ours):
        w.ledger.finish(job, "cancelled")
        return
    steps = [f"compact:{w.uuid()}"] if w.happens(0.1) and not ours.race else []
    checked = "check" in job.args
    for step in (*steps, job.kind):
        if (step, "committed") in ((one.step, one.outcome) for one in ours.turns.values()):
            continue
        final = step == job.kind and not checked
        made = yield from turn(w, job, step, pid, trusted, final=final)
        if made is None:
            return
        job, trusted = made
    if checked:
        yield from prove(w, job, pid, trusted)


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
