"""Why a job waits: a code, a sentence that says what to do, until when, and behind which job.

RULES are asked in order, and the first that knows answers: what is about the job itself, then
what goes before it in its lane, then whether anybody is there to take it. A new reason is a
function of the facts (db/jobs/waiting.py) in its place in that list, and a line in docs/jobs.md.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from config.settings import settings
from db.core import names
from db.jobs import checks, waiting
from db.jobs.jobs import NEVER, Job
from db.jobs.waiting import Facts, Fleet
from worker.text.units import duration, instant

OVERDUE = 10.0  # seconds that a relay may be silent, and a due job lie (it looks each 100 ms)
LONG = 30.0  # seconds after which a message may be lost


@dataclass(frozen=True, slots=True)
class Behind:
    """The job that goes before in the lane; `waits` is its own reason, if it does not run."""

    id: UUID
    chain_id: UUID
    kind: str
    state: str
    waits: str | None = None  # a code


@dataclass(frozen=True, slots=True)
class Waits:
    """Why a job waits. `until` is known for some codes only."""

    code: str
    sentence: str
    until: datetime | None = None
    behind: Behind | None = None


def of(conn: Connection, ids: Iterable[UUID]) -> dict[UUID, Waits]:
    """Of each of these jobs that waits, why."""
    found = waiting.facts(conn, list(ids))
    if not found:
        return {}
    fleet = waiting.fleet(
        conn,
        silent_after=settings().worker_silent_after,
        user_slots=settings().user_slots,
    )
    before = {fact.before_id for fact in found if fact.before_id}
    ahead = {fact.id: why(fact, fleet) for fact in waiting.facts(conn, list(before))}
    short = names.shortest_of_jobs(conn, list(before | {fact.id for fact in found}))
    return {fact.id: _named(why(fact, fleet), fact, ahead, short) for fact in found}


def of_one(conn: Connection, job_id: UUID) -> Waits | None:
    """Why this job waits; None if it does not."""
    return of(conn, [job_id]).get(job_id)


def distinct(told: dict[str, Any] | None) -> tuple[Any, ...]:
    """What makes a reason (as a document) another than before: not that seconds have passed."""
    if told is None:
        return ()
    behind: dict[str, Any] = told["behind"] or {}
    return told["code"], told["until"], behind.get("id"), behind.get("waits")


def _named(
    found: Waits, fact: Facts, ahead: dict[UUID, Waits], short: dict[UUID, str]
) -> Waits:
    """The reason, with ids as people give them, and with the reason of the job before it."""
    sentence = found.sentence.replace(str(fact.id), short[fact.id])
    if (behind := found.behind) is None:
        return replace(found, sentence=sentence)
    sentence = sentence.replace(str(behind.id), short[behind.id])
    if before := ahead.get(behind.id):
        sentence = f"{sentence} That one waits: {before.sentence}"
        behind = replace(behind, waits=before.code)
    return replace(found, sentence=sentence, behind=behind)


def why(fact: Facts, fleet: Fleet) -> Waits:
    """Why the job waits."""
    answers = (rule(fact, fleet) for rule in RULES)
    return next(answer for answer in answers if answer)


def _deleted(fact: Facts, _: Fleet) -> Waits | None:
    if not fact.is_deleted:
        return None
    return Waits(
        "deleting",
        "Its project is being deleted, and it goes with it (a deletion that broke off is named"
        " by `baton report health`).",
    )


def _gone(fact: Facts, _: Fleet) -> Waits | None:
    ends = "it ends as failed when a worker looks at it."
    if fact.is_gone:
        return Waits(
            "project_gone", f"Its project is gone or belongs to another user now: {ends}"
        )
    if fact.branch_is_gone:
        return Waits("branch_gone", f"Its branch was promoted or dropped: {ends}")
    return None


def _asks(fact: Facts, _: Fleet) -> Waits | None:
    if fact.state != "parked" or fact.error_class != "ask":
        return None
    lost = f" ({fact.lost})" if fact.lost else ""
    return Waits(
        "answer",
        f"Its session cannot be resumed{lost}, and it asks what to do:"
        f" `baton answer {fact.id} retry`, or `start-new`.",
    )


def unanswered(job: Job) -> str:
    """Why an answer has changed nothing, as the end of a sentence about the job."""
    asks = {"ask": ["retry", "start-new"], "check_undecided": checks.choices(job.args)}
    offered = asks.get(job.error_class or "") if job.state == "parked" else None
    return f"takes {' or '.join(offered)}" if offered else f"is {job.state} and asks nothing"


def _undecided(fact: Facts, _: Fleet) -> Waits | None:
    if fact.state != "parked" or fact.error_class != "check_undecided":
        return None
    return Waits(
        "check_answer",
        "Its version fails its check, and it asks what is to become of it:"
        f" `baton answer {fact.id} keep`{' or `rewind`' if fact.races else ', `rewind` or `repair`'}.",
    )


def _racing(fact: Facts, _: Fleet) -> Waits | None:
    if fact.state != "parked" or fact.error_class != "racing":
        return None
    return Waits("race", f"Its race is under way on branches: `baton jobs {fact.id}`.")


def _limited(fact: Facts, _: Fleet) -> Waits | None:
    if fact.state != "parked":
        return None
    if fact.limit_until:
        return _credential(fact.limit_reason, fact.limit_until, fact.wait_s)
    if fact.run_at < NEVER:
        return None
    return Waits(
        "credential",
        "It is parked until somebody lets it go on, and no limit of a credential is in force:"
        f" `baton project {fact.project_id} --unlock`.",
    )


def _credential(reason: str | None, until: datetime, wait_s: float | None) -> Waits:
    from worker.failures.sentences import SENTENCES  # with what it imports it takes a while

    told = SENTENCES.get(reason or "", "Its credential may not be used ({reason}).")
    told = told.replace("{reason}", reason or "no reason is noted").replace("{text}", "")
    if until >= NEVER:
        return Waits("credential", told)
    left = f", in {duration(wait_s)}" if wait_s and wait_s > 0 else ""
    return Waits("credential", f"{told} That is at {instant(until)}{left}.", until)


def _put_off(fact: Facts, _: Fleet) -> Waits | None:
    if fact.wait_s <= 0:
        return None
    if fact.run_at >= NEVER:
        return Waits("schedule", f"It was put off for good: `baton cancel {fact.id}`.")
    when = f"{instant(fact.run_at)}, in {duration(fact.wait_s)}"
    if fact.error_class is None and not fact.has_begun:
        return Waits("schedule", f"It is not to begin before {when}.", fact.run_at)
    error = f": {fact.error}" if fact.error else "."
    told = f"It did not succeed ({fact.error_class or 'no class'}) and is tried again at {when}"
    return Waits("backoff", f"{told}{error}", fact.run_at)


def _in_line(fact: Facts, _: Fleet) -> Waits | None:
    if not (fact.before_id and fact.before_chain and fact.before_kind and fact.before_state):
        return None
    behind = Behind(fact.before_id, fact.before_chain, fact.before_kind, fact.before_state)
    own = fact.before_chain == fact.chain_id
    whose = "its own request" if own else "an earlier request for the same project"
    told = f"Behind the {behind.kind} {behind.id} of {whose}"
    if behind.state == "running":
        told += f", which has been running for {duration(fact.before_run_s)}"
    return Waits("chain" if own else "lane", f"{told}.", behind=behind)


def _last_chance(fact: Facts, fleet: Fleet) -> Waits | None:
    is_last = 0 < fact.rescues >= settings().rescue_limit - 1
    if not (is_last and fleet.workers and fleet.last_chances >= fleet.workers):
        return None
    return Waits(
        "last_chance",
        f"{fact.rescues} workers died under it: it begins where no other such job runs, and one"
        " runs in every worker.",
    )


def _no_worker(_: Facts, fleet: Fleet) -> Waits | None:
    if fleet.workers:
        return None
    return Waits("no_worker", "No worker is online: start one with `baton up`.")


def _all_limited(_: Facts, fleet: Fleet) -> Waits | None:
    return (
        _credential(fleet.limit_reason, fleet.limit_until, None) if fleet.limit_until else None
    )


def _users_limit(fact: Facts, fleet: Fleet) -> Waits | None:
    limit = fleet.user_slots
    if not limit or fact.users_others < limit or fact.out_s is not None:
        return None
    many = f"{fact.users_others} jobs" if fact.users_others > 1 else "a job"
    return Waits(
        "user_slots",
        f"Its user has {many} at work, and BATON_USER_SLOTS allows {limit} at a time.",
    )


def _busy(fact: Facts, fleet: Fleet) -> Waits | None:
    if fact.out_s is not None and fleet.running < fleet.slots:
        return None
    if fleet.running + fleet.out < fleet.slots:
        return None
    slots = f"All {fleet.slots} slots" if fleet.slots > 1 else "The only slot"
    whose = f"the {fleet.workers} workers" if fleet.workers > 1 else "the worker"
    return Waits("busy", f"{slots} of {whose} online {_are(fleet.slots)} taken.")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _is_out(fact: Facts, _: Fleet) -> Waits | None:
    if fact.out_s is None:
        return None
    told = (
        f"Workers were told of it {duration(max(fact.out_s, 0))} ago, and none has taken it yet"
    )
    more = "; a message that was lost is sent again" if fact.out_s > LONG else ""
    return Waits("starting", f"{told}{more}.")


def _no_relay(_: Facts, fleet: Fleet) -> Waits | None:
    if fleet.relay_silent_s is not None and fleet.relay_silent_s <= OVERDUE:
        return None
    last = fleet.relay_silent_s
    since = "was heard of" if last is None else f"has been heard of for {duration(last)}"
    return Waits(
        "no_relay",
        f"No relay {since}, so nobody tells the workers of it: start `python -m worker.relay`, or"
        " `baton up`.",
    )


def _not_out(fact: Facts, _: Fleet) -> Waits:
    late = f", and has not for {duration(fact.overdue_s)}" if fact.overdue_s > OVERDUE else ""
    return Waits("publishing", f"The relay is to tell the workers of it{late}.")


RULES: tuple[Callable[[Facts, Fleet], Waits | None], ...] = (
    _deleted,
    _gone,
    _asks,
    _undecided,
    _racing,
    _limited,
    _put_off,
    _in_line,
    _last_chance,
    _no_worker,
    _all_limited,
    _users_limit,
    _busy,
    _is_out,
    _no_relay,
    _not_out,
)
