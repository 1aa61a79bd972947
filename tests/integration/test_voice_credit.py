"""What voice uses is charged, and whoever has nothing left is told and closed."""

import asyncio

import psycopg
from psycopg import Connection

from dev.standin.realtime.server import Provider
from tests.gateways import Gateway, talk
from tests.voices import at as at
from tests.voices import holds, key_of, new_name, voice
from tests.voices import key as key
from tests.voices import ledger as ledger
from tests.voices import running as running
from tests.voices import there as there
from tests.voices import url as url

LEFT = "select token_remaining, topup_remaining from accounts where id = %s"


def account(url: str, ledger: Connection, tokens: int, topup: int) -> tuple[str, str]:
    """A new account with so much left, and a key of it."""
    name = new_name("payer")
    key = key_of(url, name)
    ledger.execute(
        "update accounts set token_remaining = %s, topup_remaining = %s where id = %s",
        (tokens, topup, name),
    )
    return name, key


def left(ledger: Connection, name: str) -> tuple[int, int]:
    found = ledger.execute(LEFT, (name,)).fetchone()
    assert found
    return found[0], found[1]


def test_a_response_is_charged_to_the_tokens_and_then_to_the_topup(
    at: Gateway, url: str, there: Provider, ledger: Connection
):
    name, key = account(url, ledger, 100, 200)
    there.used = 60

    async def story() -> None:
        async with voice(at, key) as one:
            await one.ask("one")
            await holds(lambda: left(ledger, name) == (40, 200), "the first charge")
            await one.ask("two")
            await holds(lambda: left(ledger, name) == (0, 180), "the second charge")

    talk(story)
    charged = ledger.execute("select tokens from voice_charges where account_id = %s", (name,))
    assert charged.fetchall() == [(60,), (60,)]


def test_at_zero_the_client_is_told_and_closed_and_cannot_come_again(
    at: Gateway, url: str, there: Provider, ledger: Connection
):
    name, key = account(url, ledger, 50, 0)
    there.used = 60

    async def story() -> None:
        async with voice(at, key) as one:
            await one.ask("one")
            assert (await one.closed())[0] == 4402
            assert one.got[-1]["error"]["code"] == "no_credits"
            assert "baton.provider" not in one.kinds()
        await holds(lambda: not there.open_links, "the link to be closed")
        async with voice(at, key) as again:
            assert (await again.closed())[0] == 4402
            assert [e["error"]["code"] for e in again.got] == ["no_credits"]
        assert there.asked == 1, "nothing was opened for nothing"

    talk(story)
    assert left(ledger, name) == (0, 0)


def test_two_sessions_of_an_account_overspend_by_no_more_than_what_is_under_way(
    at: Gateway, url: str, there: Provider, ledger: Connection
):
    name, key = account(url, ledger, 60, 0)
    there.used = 60

    async def story() -> None:
        async with voice(at, key) as one, voice(at, key) as two:
            await two.write("Wait")
            await one.ask("Use it all")
            await holds(lambda: left(ledger, name) == (0, 0), "the charge")
            await two.say("response.create")
            assert (await two.closed())[0] == 4402
            assert "response.created" not in two.kinds()

    talk(story)
    asked = [kind for link in there.links for kind in link.kinds() if kind == "response.create"]
    assert len(asked) == 1


def test_an_account_without_a_figure_has_no_limit(
    at: Gateway, key: str, there: Provider, ledger: Connection
):
    there.used = 10**9

    async def story() -> None:
        async with voice(at, key) as one:
            for _ in range(2):
                assert (await one.ask("Go on"))["status"] == "completed"

    talk(story)
    assert ledger.execute(LEFT, ("acme",)).fetchone() == (None, 0)


def test_a_charge_that_postgres_does_not_take_now_is_made_later_and_once(
    at: Gateway, url: str, there: Provider, ledger: Connection
):
    name, key = account(url, ledger, 1000, 0)
    there.used = 60

    async def story() -> None:
        async with voice(at, key) as one:
            with psycopg.connect(url) as beside:
                beside.execute("lock table voice_charges in access exclusive mode")
                assert (await one.ask("one"))["status"] == "completed"
                assert (await one.ask("two"))["status"] == "completed"
            await holds(lambda: left(ledger, name) == (880, 0), "both charges")

    talk(story)


def test_whoever_hangs_up_in_the_middle_of_an_answer_pays_for_it(
    at: Gateway, url: str, there: Provider, ledger: Connection
):
    name, key = account(url, ledger, 1000, 0)
    there.used, there.pace = 60, 0.2

    async def story() -> None:
        async with voice(at, key) as one:
            await one.write("one two three four five six seven eight nine ten")
            await one.say("response.create")
            await one.until("response.output_audio.delta")
        await holds(lambda: left(ledger, name) == (940, 0), "the charge")

    talk(story)
    assert asyncio.run(_no_links(there)) is None


async def _no_links(there: Provider) -> None:
    await holds(lambda: not there.open_links, "the link to be closed")
