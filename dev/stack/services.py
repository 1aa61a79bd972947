"""The embedded services: a Postgres and a Redis of this checkout, under `.baton/`.

The server programs come from wheels (a Redis on PATH goes before) and are run
directly, on loopback ports that are chosen once and remembered. Each is bound to the
process that started it: when that is killed, the kernel ends them too.

    .baton/postgres/{data,port,password}    .baton/log/postgres.log
    .baton/redis/{data,port,users.acl}      .baton/log/redis.log
    .baton/redis/{,producer-}password
    .baton/lock                             held while services() is open
    .baton/services.json                    how to reach them, while they run

DATABASE_URL and REDIS_URL go before: what they name is used and not started here.
"""

import fcntl
import json
import os
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import psycopg
import redis as redis_client

from config.settings import settings
from dev.stack import processes
from dev.stack.embedded import open_postgres, open_redis
from dev.stack.noted import Services
from dev.stack.server import Server, ServiceError

CONNECT = 5  # seconds until a server that somebody else runs counts as not answering


@contextmanager
def services(
    root: Path, *, database_url: str | None = None, redis_url: str | None = None
) -> Generator[Services]:
    """Run the services of the checkout at `root`, and stop them at the end.

    A URL, given here or in the settings, names a server that runs already. Raises
    ServiceError with a sentence for people when something cannot be started.
    """
    if database_url is None:
        database_url = settings().database_url.get_secret_value()
    if redis_url is None:
        redis_url = settings().redis_url.get_secret_value()
    home, plain = home_of(root), settings().plain_broker_url.get_secret_value()
    with _alone(home), ExitStack() as opened:
        embedded = list[Server]()
        if not database_url:
            embedded.append(opened.enter_context(open_postgres(home)))
            database_url = embedded[-1].url
        if not redis_url:
            embedded.append(opened.enter_context(open_redis(home)))
            redis_url, plain = embedded[-1].url, embedded[-1].plain_url
        _check(database_url, redis_url)
        running = Services(database_url, redis_url, plain, embedded=tuple(embedded))
        opened.callback((home / "services.json").unlink, missing_ok=True)
        note(root, running)
        yield running


def note(root: Path, running: Services) -> None:
    """Write down how to reach the services, for `dev.stack.noted.find`."""
    keep = [process for server in running.embedded if (process := server.process)]
    owner = processes.look(os.getpid())
    assert owner, "this process runs"
    _write_private(
        root / ".baton" / "services.json",
        json.dumps(
            {
                "database_url": running.database_url,
                "redis_url": running.redis_url,
                "plain_broker_url": running.plain_broker_url,
                "model_url": running.model_url,
                "flower_url": running.flower_url,
                "web_url": running.web_url,
                "unboxed": running.unboxed,
                "processes": [asdict(process) for process in (owner, *keep)],
            }
        ),
    )


def home_of(root: Path) -> Path:
    """`.baton` of the checkout, made when it is missing, for its owner only."""
    home = root.resolve() / ".baton"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    return home


@contextmanager
def _alone(home: Path) -> Generator[None]:
    """Hold the checkout: one set of services at a time."""
    with (home / "lock").open("a+") as lock:
        deadline = time.monotonic() + 1  # one that was just killed still lets go
        while not _locked(lock.fileno()):
            if time.monotonic() > deadline:
                lock.seek(0)
                raise ServiceError(
                    f"Baton is up in this checkout already (process {lock.read()}): stop that "
                    "one, or use it as it is; every baton command in this checkout finds it."
                )
            time.sleep(0.05)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check(database_url: str, redis_url: str) -> None:
    """Both must answer; what is said never holds a password."""
    try:
        psycopg.connect(database_url, connect_timeout=CONNECT).close()
    except psycopg.Error as exc:
        reason = str(exc).strip().splitlines()[0]
        raise ServiceError(
            f"Postgres cannot be reached, look at DATABASE_URL: {reason}"
        ) from exc
    try:
        way = settings().redis_way(redis_url)
        with redis_client.Redis.from_url(
            way.address, **way.tls, socket_timeout=CONNECT, socket_connect_timeout=CONNECT
        ) as client:
            client.ping()
    except (redis_client.RedisError, ValueError) as exc:
        raise ServiceError(f"Redis cannot be reached, look at REDIS_URL: {exc}") from exc


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)
