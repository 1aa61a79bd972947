"""New, known, reconnected, ended: each with the rows in every state that they can be in."""

from typing import Any

import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb

from dev.standin.realtime.server import Provider
from tests.gateways import Gateway, talk
from tests.voices import MODEL, closed_with, holds, kept, key_of, new_name, row, voice
from tests.voices import at as at
from tests.voices import key as key
from tests.voices import ledger as ledger
from tests.voices import running as running
from tests.voices import there as there
from tests.voices import url as url

INSERT = "insert into sessions (account_id, session_id, data) values (%s, %s, %s)"
THEIRS = {"type": "session.update", "session": {"type": "realtime", "instructions": "Theirs."}}
STATES: dict[str, tuple[str, Any] | None] = {
    "no row": None,
    "a row without a configuration": ("acme", None),
    "an empty configuration": ("acme", {}),
    "another tenant's row": ("rival", THEIRS),
}


@pytest.mark.parametrize("state", STATES)
def test_every_flow_goes_by_what_was_accepted_whatever_the_rows_say(
    at: Gateway, key: str, there: Provider, ledger: Connection, state: str
):
    name, found = new_name(), STATES[state]
    if found:
        account, data = found
        ledger.execute(INSERT, (account, name, None if data is None else Jsonb(data)))

    async def story() -> None:
        async with voice(at, key, name) as one:
            await one.until("session.created")
            assert "session.update" not in there.links[-1].kinds(), "there is nothing to replay"
            await one.configure(instructions="Mine.")  # a new session
            await kept(ledger, name, "Mine.")
            there.close_all(1001)  # an automatic reconnect
            await one.state("reconnecting")
            await one.state("connected")
            (told,) = there.links[-1].received
            assert told["session"]["instructions"] == "Mine."
            assert not [link for link in there.links if "Theirs." in str(link.received)]
        await holds(lambda: not there.open_links, "the link to be closed")  # an explicit end
        async with voice(at, key, name) as again:  # an existing session
            told = await again.until("session.updated")
            assert told["session"]["instructions"] == "Mine."
        assert there.asked == 3, "one link for each, and none after an end"

    talk(story)
    if state == "another tenant's row":
        assert row(ledger, name, "rival")[0] == THEIRS


def test_a_row_that_goes_in_the_middle_is_written_anew_and_missed_by_nobody(
    at: Gateway, key: str, there: Provider, ledger: Connection
):
    name = new_name()

    async def story() -> None:
        async with voice(at, key, name) as one:
            await one.configure(instructions="First.")
            await kept(ledger, name, "First.")
            ledger.execute("delete from sessions where session_id = %s", (name,))
            there.close_all(1006)
            await one.state("connected")
            assert there.links[-1].received[0]["session"]["instructions"] == "First."
            await one.configure(output_modalities=["text"])
            await kept(ledger, name, "First.")

    talk(story)


def test_a_key_that_ends_in_the_middle_ends_no_session_and_opens_no_other(
    at: Gateway, url: str, there: Provider, ledger: Connection
):
    """A session that was let in goes on; whoever comes with the key afterwards has none."""
    account = new_name("ends")
    key, name = key_of(url, account), new_name()

    async def story() -> None:
        async with voice(at, key, name) as one:
            await one.configure(instructions="Go on.")
            ledger.execute(
                "update api_keys set expires_at = now() where account_id = %s", (account,)
            )
            there.close_all(1001)
            await one.state("connected")
            assert (await one.ask("Hello"))["status"] == "completed"
            asked = there.asked
            path = f"/v1/realtime?model={MODEL}&session={name}"
            assert (await closed_with(at, path, key))[0] == 4401
            assert there.asked == asked, "nothing of the provider is opened"

    talk(story)


NEVER = ["program_limit_exceeded", "lock_not_available", "raise_exception"]


@pytest.mark.parametrize("state", NEVER)
def test_a_state_that_postgres_never_takes_holds_up_no_other(
    at: Gateway, key: str, there: Provider, ledger: Connection, state: str
):
    never, name = new_name("never"), new_name()
    of = never.replace("-", "_")
    ledger.execute(
        f"""
        create function {of}() returns trigger language plpgsql as
            $$ begin raise exception 'not this' using errcode = '{state}'; end $$;
        create trigger {of} before insert on sessions for each row
            when (new.session_id = '{never}') execute function {of}()
        """.encode()
    )

    async def story() -> None:
        async with voice(at, key, never) as refused, voice(at, key, name) as one:
            await refused.configure(instructions="Not this.")
            await one.configure(instructions="This.")
            await kept(ledger, name, "This.")

    talk(story)
    assert row(ledger, never) == (None, [], None)
