"""What doctor sees in the ledger: Postgres itself, and what workers, relays and jobs leave in it."""

import shutil
from collections.abc import Iterator

from psycopg import Connection

from config.settings import settings
from db.core import ledger_settings, migrate, owners, pool, product
from db.core.pool import NoDatabase
from db.jobs import limits, relays, workers
from db.operations import reports
from worker.cli import signs
from worker.cli.doctor import model
from worker.cli.doctor.check import Check
from worker.process import postgres
from worker.text.units import duration, instant

OVERDUE = 10.0  # seconds that a due message may wait while a relay lives (it looks each 100 ms)
START_RELAY = "start `python -m worker.relay`, or `baton up`."


def in_the_ledger() -> Iterator[Check]:
    """What can be seen from Postgres, the model's answer with it."""
    try:
        conn = pool.connect()
    except NoDatabase as exc:
        yield Check("postgres", "fail", str(exc))
        return
    with conn:
        yield Check("postgres", "ok", postgres.answers(conn))
        yield Check("database", *postgres.defaults(conn))
        if waiting := migrate.pending(conn):
            yield Check(
                "migrations", "fail", f"{len(waiting)} are pending: run `baton migrate`."
            )
            return
        yield Check("migrations", "ok", "none is pending")
        yield Check("tables", *product.fitness(conn))
        yield Check("owners", *owners.fitness(conn))
        yield Check("settings", *ledger_settings.fitness(conn))
        yield _workers(conn)
        yield _relay(conn)
        yield Check("waiting", *signs.waiting(conn))
        yield Check("beat", *signs.beat(conn))
        yield Check("clean-up", *signs.clean_up(conn))
        yield Check("messages", *signs.refused(conn))
        yield Check("webhooks", *signs.webhooks_told(conn))
        yield model.answers(conn)
        yield from _limits(conn)
        yield from _remote(conn)


def _workers(conn: Connection) -> Check:
    from worker.agent.version import unsupported

    silent = settings().worker_silent_after
    online = workers.online(conn, silent_after=silent)
    if not online:
        return Check(
            "workers", "fail", f"none was heard of for {duration(silent.total_seconds())}: "
            "start one with `baton up`."
        )  # fmt: skip
    told = [
        f"{w.id}: {w.slots} slots, CLI {w.cli_version or 'missing'}, {w.box or 'no box'}"
        for w in online
    ]
    wrong = any(unsupported(w.cli_version) for w in online)
    return Check("workers", "warn" if wrong else "ok", "; ".join(told))


def _relay(conn: Connection) -> Check:
    """A relay says each second that it lives; one that lives looks at what is due at once."""
    known = relays.known(conn)
    owed = reports.owed(conn)
    overdue = owed["overdue_s"] or 0.0
    late = f"; a job has been due for {duration(overdue)}" if overdue > OVERDUE else ""
    if not known:
        return Check("relay", "fail", f"none was heard of{late}: {START_RELAY}")
    if known[0].silent_s > OVERDUE:
        return Check("relay", "fail", f"{_silent(known[0])}{late}: {START_RELAY}")
    if late:
        return Check(
            "relay", "fail", f"pid {known[0].pid} on {known[0].host} lives, and yet{late[1:]}: see its log."
        )  # fmt: skip
    busy = "; jobs are ready and wait for a slot" if owed["ready"] else ""
    return Check("relay", "ok", f"{len(known)} live, no job is overdue{busy}")


def _silent(relay: relays.Relay) -> str:
    """What is known of a relay that says nothing."""
    from worker.process import identity

    told = f"pid {relay.pid} on {relay.host}"
    if relay.boot != identity.boot():
        return f"{told} has said nothing for {duration(relay.silent_s)}"
    if identity.stopped(relay.pid):
        return f"{told} is stopped (SIGSTOP): `kill -CONT {relay.pid}`, or another is needed"
    if identity.started(relay.pid) is None:
        return f"{told} is gone"
    return f"{told} has hung for {duration(relay.silent_s)}"


def _limits(conn: Connection) -> Iterator[Check]:
    for limit in limits.in_force(conn):
        until = "it is cleared" if limit.until.year == 9999 else instant(limit.until)
        yield Check("credential", "warn", f"{limit.credential} is parked until {until}: {limit.reason}")  # fmt: skip


def _remote(conn: Connection) -> Iterator[Check]:
    from worker.workspace import remote

    if not settings().workspace_remote or not shutil.which("git"):
        return
    if why := remote.fault(conn):
        yield Check("remote", "fail", f"BATON_WORKSPACE_REMOTE: {why}")
    else:
        yield Check("remote", "ok", "BATON_WORKSPACE_REMOTE can be reached")
