"""Who may do what in Redis, as rules of its ACL (Redis 7 or Valkey 7.2, or newer).

Baton's own processes may do all but what only operators need. A plain producer may put a message
into the queue `celery` as any Celery does, and no more: it reads no queue, no stream and no
checkpoint, sends workers no command, and touches no key that is not its queue's. Each of its
commands goes with its own keys: one that could add to a set where its queue's list should be
would stop every worker.
"""

import hashlib

from worker.broker.queues import PLAIN

OWN = "~* &* +@all -@admin -@dangerous +info"
# What kombu's and redis-py's clients do to send one message, by what it is for:
PRODUCER = " ".join(
    (
        "-@all +ping +multi +exec +discard +client|setinfo +client|setname",
        # the queue, and its parts for priorities (kombu puts two control characters between)
        f"(~{PLAIN} ~{PLAIN}??[369] +lpush +llen)",
        # which queue the exchange leads to; worker/broker/connection.py does not go by it
        f"(~_kombu.binding.{PLAIN} ~_kombu.binding_permanent.{PLAIN} +sadd +smembers)",
        # for Flower: what a Celery with `task_send_sent_event` tells of its own
        "(&/0.celeryev/task.sent +publish)",
        # a client with a result backend asks for results. There are none: they are rows
        "(%R~celery-task-meta-* &celery-task-meta-* +get +mget +subscribe +unsubscribe)",
    )
)


def rule(name: str, password: str, rights: str, *, hashed: bool = False) -> str:
    """A line of an ACL file. `hashed` keeps the password itself out of it."""
    secret = f"#{hashlib.sha256(password.encode()).hexdigest()}" if hashed else f">{password}"
    return f"user {name} on {secret} {rights}"
