"""Ask Baton for work: in your own Postgres transaction, or over HTTP; verify its webhooks.

with Baton(url, key="bk_…") as baton:            # over HTTP; AsyncBaton is the same for asyncio
    job = baton.wait(baton.enqueue(Update(project="shop", user="ann", prompt="…")).id)

with psycopg.connect(dsn) as conn:               # in a transaction of yours
    enqueue(conn, Update(project="shop", user="ann", prompt="…"))

job = verify(secret, body, headers)              # of a webhook
"""

from baton_client.http import AsyncBaton, Baton
from baton_client.postgres import enqueue, enqueue_async
from baton_client.refused import Failed, Refused
from baton_client.requests import Build, ChatPlan, Compaction, Metadata, Repair, Update
from baton_client.results import Asked, Event, Events, Job, Page, Ticket
from baton_client.webhooks import NotGenuine, verify

__all__ = [
    "Asked",
    "AsyncBaton",
    "Baton",
    "Build",
    "ChatPlan",
    "Compaction",
    "Event",
    "Events",
    "Failed",
    "Job",
    "Metadata",
    "NotGenuine",
    "Page",
    "Refused",
    "Repair",
    "Ticket",
    "Update",
    "enqueue",
    "enqueue_async",
    "verify",
]
