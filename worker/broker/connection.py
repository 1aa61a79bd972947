"""Celery's connection to Redis, repaired so that it survives a Redis that is away, or full.

Connection   asked again within seconds, however long Redis was away (left alone, the
             pauses grow to half a minute); closing what is broken already is no error
             (left alone, it ends the worker, if a job runs and the loss is noticed on
             another socket than the queue's)
Channel      messages for clean-up are bounded; an exchange of ours leads to its queue,
             whatever others have written down of it
Pending      a message that cannot be noted as taken, because Redis is full, is worked
             on all the same (left alone, it is gone: it has left the queue)
Transport    what is no message is dropped, and said (left alone, it ends the worker); where
             a message came from is not its sender's to say (left alone, it is put back into
             whatever key its sender has named)
"""

import contextlib
from typing import Any, Literal, cast

import kombu
import redis
import structlog
from celery.app.amqp import AMQP
from kombu.transport import redis as transport
from kombu.transport import virtual
from redis.exceptions import ResponseError

from config.redis import Way
from config.settings import settings
from worker.broker import periodic
from worker.broker.queues import PLAIN, QUEUE

log = structlog.get_logger()

PAUSES = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 3.0}  # seconds
LIMITS: dict[str, Any] = {  # seconds; nobody waits for Redis without an end
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
SHORTLY: dict[str, Any] = {"socket_timeout": 1, "socket_connect_timeout": 1}  # seconds
ALMOST = 0.9  # of its memory: the rest is gone soon
OURS = (QUEUE, PLAIN, periodic.QUEUE)  # queues; each has an exchange of its name


def address(way: Way | None = None) -> dict[str, Any]:
    """Celery's settings of where the broker is, and how it is known to be that: the settings',
    unless another way is given."""
    if way is None:
        if not settings().redis_url:
            return {"broker_url": "redis://127.0.0.1:6379/0"}
        way = settings().redis_way()
    return {
        "broker_url": f"{way.address}/0",
        "broker_use_ssl": way.tls or False,
        "broker_transport_options": LIMITS,
    }


class Pending(transport.QoS):
    """The messages that a worker has taken and not yet acknowledged, noted in Redis."""

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)
        except ResponseError as exc:
            log.warning("message.not_noted", error=type(exc).__name__)
            virtual.QoS.append(self, message, delivery_tag)


class Channel(transport.Channel):
    QoS = Pending

    def _put(self, queue: str, message: Any, **more: Any) -> None:
        ours = cast(Any, super())
        ours._put(queue, message, **more)
        if queue == periodic.QUEUE:  # nobody may read it for weeks
            with cast(Any, self).conn_or_acquire() as client:
                client.ltrim(queue, 0, periodic.MOST - 1)

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        """The queues behind an exchange. Plain producers may write to the list in Redis."""
        if exchange in OURS:
            return [exchange]
        return cast(Any, super())._lookup(exchange, routing_key, default)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """How to reach Redis; a connection that was closed has forgotten it."""
        if getattr(self.connection, "client", None) is None:
            raise redis.ConnectionError("The connection was closed.")
        return cast(Any, super())._connparams(asynchronous=asynchronous)

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return cast(Any, super())._brpop_read(**options)
        except (ValueError, TypeError, RecursionError) as exc:  # what is no JSON
            log.warning("message.unreadable", error=type(exc).__name__)
            return True


class Transport(transport.Transport):
    Channel = Channel

    def _deliver(self, message: Any, queue: str | None) -> None:
        try:
            if queue in OURS:
                message["properties"]["delivery_info"] = _came_from(queue, message)
            cast(Any, super())._deliver(message, queue)
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            log.warning("message.unreadable", queue=queue, error=type(exc).__name__)
            self._drop(message)

    def _drop(self, message: Any) -> None:
        """Nobody is to take it any more, if somebody has."""
        with contextlib.suppress(LookupError, TypeError, AttributeError):
            tag = message["properties"]["delivery_tag"]
            for channel in cast(Any, self).channels:
                if tag in channel.qos._delivered:
                    channel.basic_reject(tag, requeue=False)


def _came_from(queue: str, message: Any) -> dict[str, Any]:
    said: Any = message["properties"]["delivery_info"]
    again = bool(said.get("redelivered"))
    return {"exchange": queue, "routing_key": queue, "redelivered": again}


class Connection(kombu.Connection):
    def get_transport_cls(self) -> type[Any]:
        found = super().get_transport_cls()
        return Transport if found is transport.Transport else found

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        return super().ensure_connection(*args, **{**PAUSES, **kwargs})


class Amqp(AMQP):
    Connection = Connection


def away(exc: Exception) -> str:
    """Why Redis is not there for us, and what to do."""
    text = str(exc)
    match exc:
        case redis.AuthenticationError():
            return "it refuses the user or password of REDIS_URL: correct them."
        case redis.ConnectionError() if "CERTIFICATE_VERIFY_FAILED" in text:
            why = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
            return (
                f"its certificate is not to be trusted ({why.rstrip('.')}): name the file of who"
                " signs it in BATON_REDIS_CA, or the host that it is for in REDIS_URL."
            )
        case _ if type(exc) in (redis.ConnectionError, redis.TimeoutError):
            return f"it does not answer at REDIS_URL ({type(exc).__name__}): start it."
        case _:
            return f"it refuses, or REDIS_URL is none ({type(exc).__name__}): correct REDIS_URL, or Redis' rights."


def trusting(way: Way) -> bool:
    """Whether the connection is encrypted, but with whoever answers."""
    return bool(way.tls) and not way.verified


def lets_anybody_in(way: Way) -> bool:
    """Whether Redis answers to whoever has no password."""
    scheme, _, rest = way.address.partition("://")
    stranger = f"{scheme}://{rest.rpartition('@')[2]}/0"
    try:
        with redis.Redis.from_url(stranger, **way.tls, **SHORTLY) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def fitness(
    memory: dict[str, Any], *, trusting: bool = False, anybody: bool = False
) -> tuple[Literal["ok", "warn", "fail"], str]:
    """Whether a Redis with this `INFO memory` will do for us: ok, warn or fail, and a sentence."""
    policy = cast("str | None", memory.get("maxmemory_policy"))
    if policy not in ("noeviction", None):
        return (
            "fail",
            f"maxmemory-policy is {policy}: set it to noeviction, or messages and checkpoints vanish.",
        )
    limit, used = int(memory.get("maxmemory") or 0), int(memory.get("used_memory") or 0)
    if limit and used >= limit:
        return "fail", "it is full and refuses what is written: raise its maxmemory; jobs wait."
    if limit and used >= ALMOST * limit:
        return "warn", f"{used / limit:.0%} of its maxmemory is in use: raise it."
    if trusting:
        return "warn", (
            "answers, but REDIS_URL says ssl_cert_reqs=none: whoever is between can read and write"
            " all; name who signs its certificate in BATON_REDIS_CA instead."
        )
    if anybody:
        return "warn", (
            "answers, but to anybody: whoever reaches it may ask for jobs of any user and end"
            " workers; give it users (`baton redis-acl`)."
        )
    return "ok", f"answers, {policy or 'eviction policy unknown'}"
