"""Whether what was started answers: each process in the way it is meant to."""

import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import psycopg
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from config import egress
from config.settings import settings
from db.core import pool
from db.core.pool import NoDatabase
from db.jobs import workers
from dev.stack.environment import Model
from dev.stack.supervisor import Child, Supervisor, last_words
from worker.broker.connection import address

POLL = 0.1  # seconds
LASTS = 1.5  # seconds; a process that cannot be asked is taken at its word after that
SILENT = timedelta(minutes=1)  # a worker's pid is its own for so long
TRIES = 3  # deaths in a row that show that it cannot start


class NotReady(Exception):
    """Something does not come up; the text says what and what it said last."""


def await_ready(
    supervisor: Supervisor,
    database_url: str,
    redis_url: str,
    *,
    flower: str,
    web: str,
    model: Model,
    egress_home: Path,
    within: float,
) -> None:
    """Wait until every process answers. Raises NotReady after `within` seconds."""
    asked: dict[str, Callable[[Child], bool]] = {
        "worker": lambda child: _pongs(child, redis_url) or _reports(child, database_url),
        "flower": lambda _: _serves(f"{flower}/healthcheck"),
        "web": lambda _: _serves(f"{web}/healthz"),
        "model": lambda _: _listens(model.url),
        "egress": lambda _: egress.listens(egress_home),
    }
    waiting = dict(supervisor.children)
    deadline = time.monotonic() + within
    while waiting:
        for name, child in list(waiting.items()):
            if child.deaths >= TRIES:
                raise NotReady(_told(child, f"ended {TRIES} times at its start"))
            if time.monotonic() > deadline:
                raise NotReady(_told(child, f"does not answer after {within:g} s"))
            if child.lives() and asked.get(name, _lasts)(child):
                del waiting[name]
        time.sleep(POLL)


def _told(child: Child, what: str) -> str:
    return f"{child.name} {what}: {last_words(child)} (more in {child.log})"


def _lasts(child: Child) -> bool:
    return child.lives(since=LASTS)


def _pongs(child: Child, redis_url: str) -> bool:
    """Whether this very worker, not another one at the broker, answers."""
    with Celery(broker=redis_url, set_as_current=False) as app:
        app.conf.update(address(settings().redis_way(redis_url)))
        try:
            answers = cast(dict[str, Any], app.control.inspect(timeout=0.5).stats() or {})
        except (OSError, RedisError, KombuError):
            return False
    pids = [answer.get("pid") for answer in answers.values()]
    return child.process is not None and child.process.pid in pids


def _reports(child: Child, database_url: str) -> bool:
    """Whether this very worker says in Postgres that it is there: with
    BATON_REMOTE_CONTROL=off it answers nobody."""
    try:
        with pool.connect(database_url) as conn:
            there = workers.online(conn, silent_after=SILENT)
    except (NoDatabase, psycopg.Error):
        return False
    pids = [each.pid for each in there if each.host == socket.gethostname()]
    return child.process is not None and child.process.pid in pids


def _serves(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _listens(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port or 80), timeout=1).close()
    except OSError:
        return False
    return True
