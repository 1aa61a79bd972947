"""A race: the same request on several branches from the head, side by side; of those that pass their
check one takes the main line's place, and the others end.

    begin ──► racers run, each on a branch; this job waits without a slot ──► it is decided ──► stop the
    others, wait for their ends ──► promote ──► drop the others ──► done

It is decided when the first has passed; by cheapest or smallest, when all have ended, or its time is
over and one has passed.

A worker may die at any arrow: what is next follows from the racers' rows (db/projects/races.py).
docs/decisions/0030 says why it is so.
"""

import contextlib
from typing import Any
from uuid import uuid4

from config.settings import settings
from db.core.events import Event
from db.core.pool import connection
from db.projects import branches, races
from db.projects.heads import HeadHeld
from db.projects.races import BranchBusy, BranchGone, Racer
from worker.failures.errors import (
    AttemptReplaced,
    BadRequest,
    CheckFailed,
    CheckUndecided,
    NotPromoted,
    RaceFailed,
    Racing,
    WorkspaceBusy,
)
from worker.job import endings, files, job_events, proof
from worker.job.attempt import Attempt
from worker.job.successors import following_of
from worker.process import crash_points

NOT_HANDED_ON = (
    "race",
    "race_by",
    "race_models",
    "race_seconds",
    "busy",
    "check_answer",
    "workspace",
    "template",
)


def run_race(at: Attempt, replaced: str) -> None:
    """Begin the race, or go on with it. `replaced`: what those who race are told of the request whose
    place this one has taken.

    Raises Racing while it is under way; CheckFailed, CheckUndecided, NotPromoted or RaceFailed.
    """
    found = _racers(at)
    if not found:
        _begin(at, replaced)
        raise Racing("It races on branches of its own.")
    if any(not one.ended for one in found):
        if _decided(at, found):
            with connection() as conn:
                races.stop(conn, at.job)
        raise Racing("It races on branches of its own.")
    best = _best(at, found)
    if best is None:
        _nobody_passed(at, found)
    else:
        _take(at, found, best, "passing")
        _settle(at, found, best)


def _racers(at: Attempt) -> list[Racer]:
    with connection() as conn:
        return races.racers(conn, at.job)


def _decided(at: Attempt, found: list[Racer]) -> bool:
    """Whether those that still race can be none that is taken."""
    over = races.by(at.job) == races.FIRST or any(
        not one.ended and not one.in_time for one in found
    )
    return over and any(one.passed for one in found)


def _best(at: Attempt, found: list[Racer]) -> Racer | None:
    """The one that is taken, of those that have passed, in the order in which they ended. Of equals
    the first; once it is promoted, that one."""
    # Somebody may have dropped one: it has no head.
    passed = [one for one in found if one.passed]
    passed = [one for one in passed if one.head] or passed
    passed.sort(key=lambda one: not one.promoted)
    in_time = [one for one in passed if one.in_time]
    if not in_time or passed[0].promoted:
        return passed[0] if passed else None
    match races.by(at.job):
        case races.CHEAPEST:
            return min(in_time, key=lambda one: one.cost_usd)
        case races.SMALLEST:
            return min(in_time, key=lambda one: (one.patch_bytes is None, one.patch_bytes or 0))
        case _:
            return passed[0]


def _begin(at: Attempt, replaced: str) -> None:
    if not proof.commands(at):
        raise BadRequest(
            "A race needs a check that says who has passed, and the project has none any more: give"
            " the request one, and ask again."
        )
    if at.job.head is None or at.job.tree is None:
        raise BadRequest(
            "A race begins from the project's newest session and its files: build the project once."
        )
    with connection() as conn:
        asked = {uuid4(): args for args in _asked(at, replaced)}
        if not races.begin(conn, at.job, asked):
            raise AttemptReplaced("The job was taken over before its race began.")
    crash_points.reach("race.begun")


def _asked(at: Attempt, replaced: str) -> list[dict[str, Any]]:
    """The arguments of each of the race: those of the request, with a share of its budget."""
    given = at.job.args
    many = int(given["race"])
    budget = given.get("budget") or settings().budget_usd
    base = {name: value for name, value in given.items() if name not in NOT_HANDED_ON} | {
        "check": proof.commands(at),
        "on_check_failed": "keep",
        **({"budget": float(budget) / many} if budget else {}),
        **({"replaced": replaced} if replaced else {}),
    }
    models: list[str] = given.get("race_models") or []
    return [
        base | {"racer": n + 1} | ({"model": models[n]} if models else {}) for n in range(many)
    ]


def _take(at: Attempt, found: list[Racer], best: Racer, status: str) -> None:
    """Promote one, and drop the others."""
    version = at.job.version_id or str(at.job.chain_id)
    with connection() as conn:
        try:
            promoted = races.promote(conn, at.job, best, version, status)
        except BranchBusy as exc:
            raise WorkspaceBusy(
                "A job runs on the branch of what has won: the race is settled when it has ended."
            ) from exc
        except HeadHeld as exc:
            _drop(at, found, but=best)
            raise NotPromoted(_not_promoted(at, exc, status)) from exc
    if not promoted:
        raise AttemptReplaced("The job was taken over before its race was settled.")
    crash_points.reach("race.promoted")
    _drop(at, found, but=best)
    at.go_to(str(best.head), best.tree)
    files.provide(at)


def _not_promoted(at: Attempt, why: HeadHeld, status: str) -> str:
    what = "What has won" if status == "passing" else "What came nearest to passing"
    if isinstance(why, BranchGone):
        return f"{what} was dropped as a branch before it could be taken: ask anew."
    return (
        f"The project's session was moved while the race was run. {what} is kept as a branch:"
        f" `baton branches {at.job.project_id}` shows it, and `baton promote` with --onto takes"
        " it onto the head that there is now."
    )


def _drop(at: Attempt, found: list[Racer], *, but: Racer | None = None) -> None:
    for one in found:
        if one != but and one.head:
            with contextlib.suppress(HeadHeld), connection() as conn:  # somebody took it up
                branches.drop(conn, at.job.project_id, one.lane, why="race")


def _settle(at: Attempt, found: list[Racer], best: Racer) -> None:
    """The job is done with what has won, and its chain goes on. Raises AttemptReplaced."""
    job = at.job
    made = {name: value for name, value in (best.result or {}).items() if name != "patch_bytes"}
    result = made | {"race": _told(at, found, best)}
    told = [
        Event("chat.said", job.id, _said(at, best)),
        Event("job.done", job.id, {**job_events.about(job), "result": result}),
    ]
    endings.finish_done(job, told, result, following_of(job))


def _said(at: Attempt, best: Racer) -> dict[str, Any]:
    text = (best.result or {}).get("text", "")
    about = job_events.about(at.job)
    return {**about, "role": "assistant", "text": text, "session": best.head, "step": "build"}


def _told(at: Attempt, found: list[Racer], best: Racer) -> dict[str, Any]:
    racers = [
        {
            "job": str(one.id),
            "number": one.number,
            "state": one.state,
            "cost_usd": float(one.cost_usd),
            "patch_bytes": one.patch_bytes,
        }
        for one in sorted(found, key=lambda one: one.number)
    ]
    return {
        "by": races.by(at.job),
        "winner": best.number,
        "branch": best.lane,
        "racers": racers,
    }


def _nobody_passed(at: Attempt, found: list[Racer]) -> None:
    """None is good: what the request says of a version that fails goes for the nearest one."""
    made = [one for one in found if one.made]
    if not made:
        _drop(at, found)
        first = found[0]
        raise RaceFailed(f"None of the {len(found)} came to a version. {first.error}")
    # of equals the first that ended; one whose branch is gone is none to keep
    best = max(made, key=lambda one: (one.head is not None, one.commands or 0))
    none = f"None of the {len(found)} passed its check."
    failed = (best.error or "").removesuffix(proof.KEPT).strip()
    match at.job.args.get("check_answer") or proof.policy(at):
        case "ask":
            raise CheckUndecided(f"{none} Of the nearest: {failed} Answer keep or rewind.")
        case "keep" if best.head:
            _take(at, found, best, "failing")
            raise CheckFailed(f"{none} Of the nearest: {failed} {proof.KEPT}")
        case _:
            _drop(at, found)
            raise CheckFailed(f"{none} Of the nearest: {failed} {proof.TAKEN_BACK}")
