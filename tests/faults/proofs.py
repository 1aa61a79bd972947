"""What a simulated worker does with a check, and with a race: the shapes of worker/job/proof.py and
worker/job/race.py, where nobody waits and all that is decided is read from the rows.
"""

from collections.abc import Generator

from db.jobs.attempts import Claimed
from db.projects.races import Racer
from tests.faults.simulation import Steps, World
from tests.faults.turns import next_of, ring, run, turn

RACERS = 2


def prove(w: World, job: Claimed, pid: int, trusted: float) -> Steps:
    """Check what the job has made, let it be mended, and end the job."""
    while True:
        stand = w.ledger.stand(job)
        if job.head != stand.newest:  # an operator has moved it
            w.ledger.finish(job, "failed")
            return
        found = stand.of_round(stand.repairs)
        if found:
            passed = found[0].passed
        elif (ran := (yield from _command(w, job, stand.repairs, pid, trusted))) is None:
            return
        else:
            passed, trusted = ran
        yield
        if passed or stand.repairs >= job.args["check_tries"]:
            following = next_of(w, job) if passed else None
            state = "done" if passed else "failed"
            yield from ring(w, w.ledger.finish(job, state, following))
            return
        step = f"repair:{stand.repairs + 1}"
        mended = yield from turn(w, job, step, pid, trusted, final=False)
        if mended is None:
            return
        job, trusted = mended
        w.ledger.seen["mended"] += 1


def _command(
    w: World, job: Claimed, round_: int, pid: int, trusted: float
) -> Generator[None, None, tuple[bool, float] | None]:
    """Whether it passed, and until when the lease is trusted; None: the attempt is over."""
    if trusted <= w.now:
        return None
    yield
    until = yield from run(w, job, pid, trusted)
    if until is None:
        return None
    yield
    passed = w.rng.random() < 0.5
    return (passed, until) if w.ledger.record(job, (round_, 1), passed=passed) else None


def race(w: World, job: Claimed) -> Steps:
    """Begin it, go on waiting, or settle it."""
    found = w.ledger.racers(job)
    if found and all(one.ended for one in found):
        yield from _settle(w, job, found)
        return
    if not found:
        if job.head is None:
            w.ledger.finish(job, "failed")
            return
        if not w.ledger.begin_race(job, [w.uuid() for _ in range(RACERS)]):
            return
    elif any(one.passed for one in found):
        yield
        w.ledger.stop_race(job)
    yield
    if not w.ledger.wait_for_race(job):
        w.ledger.finish(job, "cancelled")


def _settle(w: World, job: Claimed, found: list[Racer]) -> Steps:
    passed = sorted((one for one in found if one.passed), key=lambda one: not one.promoted)
    best = passed[0] if passed else None
    taken = w.ledger.promote(job, best) if best else None
    if taken is False:
        return  # another attempt has it
    yield
    for one in found:
        if one != best and one.head:
            w.ledger.drop(one)
            yield
    following = next_of(w, job) if taken else None
    yield from ring(w, w.ledger.finish(job, "done" if taken else "failed", following))
