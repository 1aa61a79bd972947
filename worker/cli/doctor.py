"""`baton doctor`: one check after the other, each a line that says how it knows.

A check is `ok`, `warn` (look at it; work goes on) or `fail` (jobs will not run as they
should). The probe of the model costs a token or two, and clears a credential that was parked
when it succeeds.
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from psycopg import Connection

from config.release import version
from config.settings import settings
from db.core import ledger_settings, migrate, pool, product
from db.core.pool import NoDatabase
from db.jobs import limits, relays, workers
from db.operations import reports
from worker.broker import flower
from worker.cli import signs
from worker.process import postgres
from worker.text.units import duration, instant, shortened, size

OVERDUE = 10.0  # seconds that a due message may wait while a relay lives (it looks each 100 ms)
START_RELAY = "start `python -m worker.relay`, or `baton up`."
PROBE = 20.0  # seconds for the model to answer
CHEAP_MODEL = "claude-haiku-4-5"  # asked for a word when BATON_MODEL names none
ANTHROPIC = "https://api.anthropic.com"
LITTLE_DISK, NO_DISK = 2 * 10**9, 2 * 10**8  # bytes

State = Literal["ok", "warn", "fail"]
Verdict = tuple[State, str]


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, and what was seen."""

    name: str
    state: State
    text: str


def examine() -> Iterator[Check]:
    """Every check, as it is made; a later one that needs an earlier one is left out with it."""
    yield Check("baton", "ok", f"{version()}, on Python {platform.python_version()}")
    yield from _ledger()
    yield from _broker()
    yield from _machine()


def _ledger() -> Iterator[Check]:
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
        yield Check("settings", *ledger_settings.fitness(conn))
        yield _workers(conn)
        yield _relay(conn)
        yield Check("waiting", *signs.waiting(conn))
        yield Check("beat", *signs.beat(conn))
        yield Check("clean-up", *signs.clean_up(conn))
        yield Check("messages", *signs.refused(conn))
        yield _model(conn)
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


def _model(conn: Connection) -> Check:
    """Ask the model's endpoint for a word; lift the credential's limit if it gives it."""
    from worker.process import identity

    key = settings().anthropic_api_key.get_secret_value()
    if not key and not settings().anthropic_base_url:
        return Check(
            "model", "warn", "neither ANTHROPIC_API_KEY nor ANTHROPIC_BASE_URL is set here:"
            " `baton up` runs a stand-in; give doctor what the workers have."
        )  # fmt: skip
    state, text = _probe(settings().anthropic_base_url or ANTHROPIC, key)
    if state != "ok":
        return Check("model", state, text)
    limit = limits.standing(conn, identity.credential())
    if limit:
        released = limits.clear(conn, identity.credential())
        text += f"; it was parked ({limit.reason}) and is cleared: {released} jobs go on"
    others = {w.credential for w in workers.online(conn, silent_after=timedelta(days=1))}
    if others and identity.credential() not in others:
        return Check("model", "warn", f"{text}; but the workers use another key or address")
    return Check("model", "ok", text)


def _probe(base: str, key: str) -> Verdict:
    import httpx

    local = urlsplit(base).hostname in ("127.0.0.1", "localhost", "::1")
    try:
        answer = httpx.post(
            f"{base.rstrip('/')}/v1/messages",
            headers={"x-api-key": key, "anthropic-version": "2023-06-01"},
            json={
                "model": settings().model or CHEAP_MODEL,
                "max_tokens": 2,  # the stand-in takes 1 for a check by the CLI, and spares it faults
                "messages": [{"role": "user", "content": "Say yes."}],
            },
            timeout=PROBE,
            trust_env=not local,  # no proxy stands between us and loopback
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
        return (
            "fail",
            f"{base} does not answer ({type(exc).__name__}): look at ANTHROPIC_BASE_URL.",
        )
    return _judge(base, answer.status_code, answer.headers.get("retry-after"), _told(answer))


def _told(answer: Any) -> dict[str, Any]:
    """The answer's document; empty when it is none."""
    try:
        document = answer.json()
    except ValueError:
        return {}
    return cast(dict[str, Any], document) if isinstance(document, dict) else {}


def _judge(base: str, status: int, retry_after: str | None, told: dict[str, Any]) -> Verdict:
    match status:
        case 200 if told.get("type") == "message":
            return "ok", f"{base} accepts the key"
        case 200:
            return "fail", f"{base} is not the Messages API: correct ANTHROPIC_BASE_URL."
        case 401 | 403:
            return "fail", f"{base} refuses the key ({status}): put in a valid one."
        case 404:
            return "fail", f"{base} does not know the model (404): correct BATON_MODEL."
        case 429:
            return "warn", f"{base} limits the key (429)" + (
                f" for {retry_after} s" if retry_after else ""
            )
        case _ if status >= 500:
            return "warn", f"{base} has trouble ({status}): jobs wait and try again"
        case _:
            error = cast(dict[str, Any], told.get("error") or {})
            why = shortened(str(error.get("message") or "no reason given"), 200)
            return "fail", f"{base} refuses a short request ({status}): {why}"


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


def _broker() -> Iterator[Check]:
    from redis import RedisError

    from worker.broker.connection import away, fitness, trusting
    from worker.broker.periodic import QUEUE as UPKEEP
    from worker.broker.queues import PLAIN, QUEUE
    from worker.live.checkpoints import client

    if not settings().redis_url:
        yield Check("redis", "fail", "REDIS_URL is not set: set it, or start `baton up`.")
        return
    try:
        memory: Any = client(0).info("memory")
        lengths: list[Any] = [client(0).llen(name) for name in (QUEUE, PLAIN, UPKEEP)]
    except (RedisError, ValueError) as exc:
        yield Check("redis", "fail", away(exc))
        return
    yield Check("redis", *fitness(memory, trusting=trusting(settings().redis_way())))
    yield Check(
        "queues",
        "ok",
        f"{QUEUE}: {lengths[0]} messages, {PLAIN} (plain): {lengths[1]}, {UPKEEP}: {lengths[2]}",
    )
    if settings().flower_url:
        yield Check("flower", *flower.closed(settings().flower_url))


def _machine() -> Iterator[Check]:
    from worker.agent.version import cli_version, unsupported

    version = cli_version()
    if why := unsupported(version):
        yield Check("agent CLI", "warn" if version else "fail", why)
    else:
        yield Check("agent CLI", "ok", f"{version}, with which Baton is tested")
    yield _box()
    if git := shutil.which("git"):
        yield Check("git", "ok", git)
    else:
        yield Check(
            "git", "fail", "it is not on PATH: install it, workspaces are kept with it."
        )
    yield _writable("workspaces", settings().workspaces)
    yield _writable("agent home", settings().agent_home)
    yield _disk(settings().workspaces)


def _box() -> Check:
    """A box is made where turns have theirs, and tried from inside."""
    from worker.sandbox import box

    if settings().sandbox == "auto" and shutil.which("bwrap") and (why := _untried()):
        return Check("bubblewrap", "warn", why)
    try:
        here = box.found()
    except OSError as exc:
        return Check("bubblewrap", "warn", f"cannot be tried: {exc}")
    if here.way is None:
        return Check("bubblewrap", "fail" if here.refused else "warn", here.why)
    owner = "" if here.way.owner is None else f", as uid {here.way.owner}"
    return Check("bubblewrap", "ok", f"agents run in a box that holds{owner}")


def _untried() -> str | None:
    """Why no box is to be tried yet: what this user makes would be in the way of workers that are
    another's. What they have made themselves is there to be used."""
    from worker.sandbox import home

    places = [
        settings().workspaces,
        home.turns(),
        *([home.files()] if os.geteuid() == 0 else []),
    ]
    missing = next((place for place in places if not place.is_dir()), None)
    return f"is tried once {missing} is there: a worker makes it" if missing else None


def _writable(name: str, folder: Path) -> Check:
    there = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as exc:
        return Check(name, "fail", f"{there} cannot be written: {exc.strerror or exc}.")
    return Check(name, "ok", f"{folder}" if there == folder else f"{folder} will be made")


def _disk(folder: Path) -> Check:
    usage = shutil.disk_usage(_existing(folder))
    told = f"{size(usage.free)} free of {size(usage.total)}"
    if usage.free < NO_DISK:
        return Check("disk", "fail", f"{told}: make room, or the next turn fails.")
    return Check("disk", "warn" if usage.free < LITTLE_DISK else "ok", told)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
