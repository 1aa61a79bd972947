"""What `baton bench scale` does in each ledger: what pages, reports and clean-up ask for, deletions,
and the statements of producers, workers and relay. What these change is taken back.

A test has Postgres explain all of it: no table that grows is read from end to end.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import md5
from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg import Connection

from db.core.walks import Walk
from db.jobs import attempts, endings, jobs, limits, listing, messages, outbox, relays, rescue
from db.jobs.attempts import Claimed, Runner
from db.jobs.endings import End
from db.jobs.listing import Wanted
from db.operations import census, deletion, receipts, reports, upkeep
from db.projects import projects, trees
from db.sessions import chat, commits, registry, turns
from db.sessions.commits import Advance
from db.sessions.turns import Try
from dev.bench.fill import Amount
from worker.client import Build, enqueue
from worker.reports import figures
from worker.reports.health import health
from worker.reports.jobs import listed
from worker.reports.sessions import describe

RUNNER = Runner("worker", "host", "boot", 1, 1, "a credential of the bench")
SOON, LEASE, SILENT = timedelta(seconds=2), timedelta(seconds=30), timedelta(seconds=60)
DAY = timedelta(days=1)
DUE = 200  # rows that clean-up is given to do


@dataclass(frozen=True, slots=True)
class Work:
    """Something to do, and what is done before it, of which the time does not count."""

    name: str
    do: Callable[[Connection, Any], object]
    before: Callable[[Connection, int], Any] = lambda _conn, number: number

    @contextmanager
    def prepared(self, conn: Connection, number: int) -> Generator[Callable[[], object]]:
        """For the run of that number: what is to be timed."""
        with conn.transaction(force_rollback=True):
            given = self.before(conn, number)
            yield lambda: self.do(conn, given)


@dataclass(frozen=True, slots=True)
class Names:
    """Ids as the filling makes them, of the `number`th project that is looked at."""

    amount: Amount

    def project(self, number: int) -> str:
        return f"project-{self._nth(number)}"

    def user(self, number: int) -> str:
        return f"user-{self._nth(number) % (1 + self.amount.projects // 4)}"

    def job(self, number: int) -> UUID:
        """Its newest finished build."""
        return _of("job", self._nth(number), self._newest)

    def session(self, number: int) -> str:
        return str(_of("session", self._nth(number), self._newest))

    def waiting(self, number: int) -> UUID:
        """Its first job that waits."""
        return _of("waiting", self._nth(number), 0)

    def _nth(self, number: int) -> int:
        return (number * 37 + 11) % self.amount.projects

    @property
    def _newest(self) -> int:
        return self.amount.archived + self.amount.done - 1


def _of(*words: object) -> UUID:
    return UUID(md5(" ".join(map(str, words)).encode(), usedforsecurity=False).hexdigest())


def works(amount: Amount) -> list[Work]:
    """All there is to do in a ledger of this size."""
    names = Names(amount)
    return [*_pages(names), *_asking(names), *_at_work(names), *_clean_up(), *_deletions(names)]


def _pages(names: Names) -> list[Work]:
    def job(conn: Connection, number: int) -> None:
        found = jobs.get(conn, names.job(number))
        assert found
        reports.held(conn, found.id)
        jobs.chain(conn, found.chain_id)
        jobs.turns(conn, found.id)
        jobs.resume_attempts(conn, found.id)

    def project(conn: Connection, number: int) -> None:
        name = names.project(number)
        assert projects.get(conn, name)
        projects.latest_version(conn, name)
        reports.overview(conn, name)
        listing.open_of(conn, name)

    def doctor(conn: Connection, _: int) -> None:
        relays.known(conn)
        reports.owed(conn)
        reports.ticks(conn)
        limits.in_force(conn)
        trees.newest_project(conn)

    return [
        Work("baton jobs", lambda conn, _: listed(conn, listing.jobs(conn, Wanted()))),
        Work(
            "baton jobs --project P",
            lambda conn, n: listed(conn, listing.jobs(conn, Wanted(project=names.project(n)))),
        ),
        Work(
            "baton jobs --user U",
            lambda conn, n: listed(conn, listing.jobs(conn, Wanted(user=names.user(n)))),
        ),
        Work("is there such a user", lambda conn, n: listing.is_user(conn, f"no-{n}")),
        Work("baton jobs ID", job),
        Work("baton project P", project),
        Work("baton chain P", lambda conn, n: reports.moves(conn, names.project(n))),
        Work("baton session ID", lambda conn, n: describe(conn, names.session(n))),
        Work("baton doctor, of the ledger", doctor),
        Work("baton report sync", lambda conn, _: figures.sync(conn)),
        Work("baton report resume", lambda conn, _: figures.resume(conn, 30)),
        Work("baton report cost", lambda conn, _: figures.cost(conn, 30)),
        Work(
            "baton report cost --project P",
            lambda conn, n: figures.cost(conn, 30, names.project(n)),
        ),
        Work("baton report health", lambda conn, _: health(conn)),
    ]


def _asking(names: Names) -> list[Work]:
    def known(conn: Connection, number: int) -> None:
        ask = Build(project=names.project(number), user=names.user(number), prompt="go")
        enqueue(conn, ask)

    def new(conn: Connection, number: int) -> None:
        enqueue(conn, Build(project=f"new-{number}", user="new", prompt="go"))

    return [
        Work("ask for a new project", new),
        Work("ask for a known project", known),
        Work("cancel", lambda conn, n: jobs.cancel(conn, names.waiting(n))),
        Work("retry", lambda conn, n: jobs.again(conn, names.job(n))),
    ]


def _at_work(names: Names) -> list[Work]:
    def claim(conn: Connection, number: int) -> Claimed:
        found = attempts.claim(
            conn, names.waiting(number), attempt=uuid4(), runner=RUNNER, lease=LEASE, limit=3
        )
        assert found
        return found

    def dead(conn: Connection, _: int) -> None:
        rescue.expired(conn)
        rescue.running_on(conn, "boot")

    def revoked(conn: Connection, number: int) -> None:
        messages.revoke(conn, [names.waiting(number), *(uuid4() for _ in range(DUE))])

    def finish(conn: Connection, job: Claimed) -> None:
        endings.finish(conn, job, End(state="failed"), [], SOON)

    return [
        Work("relay: anything?", lambda conn, _: outbox.owes(conn, older_than=SOON)),
        Work("relay: look", lambda conn, _: outbox.look(conn)),
        Work("relay: publish", _publish, lambda conn, _: outbox.look(conn)),
        Work("relay: the dead", dead),
        Work("worker: revokes", lambda conn, _: messages.cancel_revoked(conn), revoked),
        Work("relay: old revokes", lambda conn, _: messages.renew(conn), revoked),
        Work("claim", claim),
        Work("renew", lambda c, job: attempts.renew(c, job.id, job.attempt, LEASE), claim),
        Work("candidates", _candidates, claim),
        Work("digest", _digest, claim),
        Work("prompt of the replaced", attempts.replaced_prompt, claim),
        Work("commit", _commit, claim),
        Work("finish", finish, claim),
    ]  # fmt: skip


def _publish(conn: Connection, _: object) -> None:
    outbox.room(conn, silent_after=SILENT)
    outbox.publish(conn, room=20, user_slots=0, pause=SOON, longest=SILENT)


def _candidates(conn: Connection, job: Claimed) -> None:
    registry.candidates(conn, job, user_id=job.user_id, handed=None)


def _digest(conn: Connection, job: Claimed) -> None:
    chat.past(conn, job.project_id, lane=job.lane, head=job.head, user_id=job.user_id)


def _commit(conn: Connection, job: Claimed) -> None:
    minted = str(uuid4())
    tries = [Try(job.head, "trying")]
    turns.begin(conn, job, step="build", parent=job.head, minted=minted, tries=tries)
    moved = commits.advance(
        conn,
        job,
        Advance(
            step="build", old=job.head, new=minted, parent=job.head, minted=minted,
            relation="forked", source="update", version_id="v-new", new_version=True,
        ),
        told=[],
        following=None,
        publish_after=SOON,
    )  # fmt: skip
    assert moved


def _clean_up() -> list[Work]:
    """Each task with nothing to do, and with something: a page, as far as that is what is due."""

    def made_due(statement: LiteralString) -> Callable[[Connection, int], int]:
        def make(conn: Connection, number: int) -> int:
            conn.execute(statement, {"due": DUE})
            return number

        return make

    def first_page() -> Walk:
        return Walk(in_vain=0.0)

    tasks: list[tuple[str, Callable[[Connection], object], LiteralString]] = [
        ("mark_stale", lambda c: upkeep.mark_stale(c, DAY, first_page()), UNMARKED),
        ("archive_transitions", lambda c: upkeep.archive_transitions(c, 30 * DAY, first_page()), AGED),
        ("clear_jobs", lambda c: upkeep.clear_jobs(c, 30 * DAY, first_page()), ENDED_LONG_AGO),
        ("drop_branches", lambda c: upkeep.drop_branches(c, 30 * DAY, first_page()), "select %(due)s"),
        ("prune_transcripts", lambda c: upkeep.prune_transcripts(c, 7 * DAY, first_page()), UNNAMED),
        ("census", lambda c: census.count_projects(c, {}, first_page()), "select %(due)s"),
    ]  # fmt: skip
    return [
        work
        for name, do, due in tasks
        for work in (
            Work(f"{name}, a page", lambda conn, _, do=do: do(conn)),
            *(
                [Work(f"{name}, {DUE} due", lambda conn, _, do=do: do(conn), made_due(due))]
                if due != "select %(due)s"
                else []
            ),
        )
    ]


UNMARKED: LiteralString = """
    update project_ai_session_metrics set stale_at = null
     where session_id in (select session_id from project_ai_session_metrics
                           order by created_at limit %(due)s)"""
AGED: LiteralString = """
    update session_transitions set created_at = now() - interval '31 days', version_id = null
     where id in (select id from session_transitions order by id limit %(due)s)"""
ENDED_LONG_AGO: LiteralString = """
    update jobs set finished_at = now() - interval '31 days'
     where id in (select id from jobs where finished_at is not null
                   order by finished_at limit %(due)s)"""
UNNAMED: LiteralString = """
    update project_versions set ai_session_id = null
     where id in (select v.id from project_versions v
                    join (select distinct project_id from transcript_sessions
                           order by 1 limit 20) p using (project_id)
                   where version_id in ('v0', 'v1', 'v2') limit %(due)s)"""


def _deletions(names: Names) -> list[Work]:
    def project(conn: Connection, number: int) -> None:
        _delete(conn, "project", names.project(number))

    def user(conn: Connection, number: int) -> None:
        _delete(conn, "user", names.user(number))

    def handed_on(conn: Connection, number: int) -> int:
        """The user's projects are another's by now: what is left of the user is looked for."""
        conn.execute(
            "update projects set user_id = 'heir' where user_id = %s", (names.user(number),)
        )
        return number

    return [
        Work("delete a project's rows", project),
        Work("delete a user's rows", user),
        Work("delete a user's rows in others' projects", user, handed_on),
    ]


def _delete(conn: Connection, what: str, subject: str) -> None:
    deletion.found(conn, what, subject)
    receipt = receipts.begin(conn, what, subject, host="host")
    for project in deletion.projects_of(conn, what, subject):
        projects.place_refused(conn, "", project, ["/srv/workspaces"])
        deletion.take_project(conn, receipt.id, project, turns_here=[])
    if what == "user":
        deletion.take_user(conn, receipt.id, subject)
    receipts.close(conn, receipt.id)
