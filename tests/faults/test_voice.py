"""Voice under fire: closes at random moments, clients that vanish, a gateway that is killed, Postgres away.

The gateway is one that can be counted: nothing of what was is left in it.
"""

import asyncio
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from psycopg import Connection
from websockets.exceptions import ConnectionClosed

from dev.standin.realtime.server import Provider
from tests.calling import CONFIG, make, post, side
from tests.counted import count
from tests.faults.conftest import Tally
from tests.faults.speaking import (
    all_speak,
    calm,
    left,
    older_again,
    out_of_order,
    quiet,
    speak_until,
    users,
)
from tests.faults.wire import Wire, wired
from tests.gateways import Gateway, gateway, talk
from tests.voices import (
    environment,
    holds,
    instructions,
    kept,
    key_of,
    new_name,
    row,
    voice,
)
from tests.voices import key as key
from tests.voices import ledger as ledger
from tests.voices import running as running
from tests.voices import there as there
from tests.voices import url as url
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def at(
    url: str, redis_server: str, running: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    log = tmp_path_factory.mktemp("gateway") / "log"
    env = environment(running) | {"COUNTED": str(log.with_name("counted"))}
    with gateway(url, redis_server, log, module="tests.counted", **env) as one:
        yield one


def test_closes_at_random_moments_lose_nothing_and_leave_nothing(
    at: Gateway, key: str, there: Provider, ledger: Connection, long: bool, seed: int,
    tally: Tally,
):  # fmt: skip
    """The seed's leak and its loop, many at a time: what was accepted is replayed, in order."""
    closes, many = (100, 20) if long else (15, 4)
    tally.fault = f"the provider closes, {many} conversations"
    there.pace = 0.02
    over = asyncio.Event()
    names = [new_name("flap") for _ in range(many)]
    said: list[list[str]] = []

    async def strike() -> None:
        chance = random.Random(seed)
        while tally.runs < closes:
            await asyncio.sleep(chance.random() * 0.2)
            if links := there.open_links:
                there.close(chance.choice(links), chance.choice([1001, 1006, 1011]))
                tally.ran()
        over.set()

    async def story() -> None:
        said[:] = await all_speak(over, at, key, names, strike())
        for name, one in zip(names, said, strict=True):
            await kept(ledger, name, one[-1])

    talk(lambda: calm(at, key, there, many))
    before = count(at)
    talk(story)
    talk(lambda: calm(at, key, there, many))
    links = there.links
    tally.check(
        left(before, at)
        + [wrong for link in links for wrong in out_of_order(link)]
        + older_again(links)
        + [
            f"{name}: other items are kept than were said"
            for name, one in zip(names, said, strict=True)
            if users(row(ledger, name)[1])[-50:] != [f"say {each}" for each in one][-50:]
        ]
    )


def test_clients_that_vanish_leave_nothing_behind(
    at: Gateway, key: str, there: Provider, long: bool, seed: int, tally: Tally
):
    rounds, many = (50, 10) if long else (3, 6)
    tally.fault = "clients of voice connect and vanish"
    there.pace = 0.05
    chance = random.Random(seed)

    async def vanish() -> None:
        async with voice(at, key, new_name("storm")) as one:
            await one.say("session.update", session={"type": "realtime", "instructions": "x"})
            if chance.random() < 0.5:
                await one.say("response.create")
                await one.hear()
            one.connection._connection.transport.abort()  # pyright: ignore

    async def story() -> None:
        for _ in range(rounds):
            ends = await asyncio.gather(
                *(vanish() for _ in range(many)), return_exceptions=True
            )
            odd = (AttributeError, TimeoutError)
            assert not [end for end in ends if isinstance(end, odd)]
            tally.ran(many)

    talk(lambda: calm(at, key, there, many))
    before = count(at)
    talk(story)
    talk(lambda: calm(at, key, there, many))
    assert len(there.links) > rounds * many / 2, "most of them had a link"
    tally.check(left(before, at))


@pytest.mark.long
def test_a_gateway_that_is_killed_in_mid_conversation_is_followed_by_another(
    at: Gateway, url: str, redis_server: str, there: Provider, key: str, ledger: Connection,
    tally: Tally, tmp_path: Path,
):  # fmt: skip
    """What Postgres had when it died is what the other one replays."""
    tally.fault = "a gateway with 5 who speak is killed, they go to another"
    there.pace = 0.02
    names = [new_name("killed") for _ in range(5)]

    async def story(one: Gateway) -> None:
        speak = (
            speak_until(asyncio.Event(), one, key, name, number)
            for number, name in enumerate(names)
        )
        speaking = asyncio.gather(*speak, return_exceptions=True)
        await holds(lambda: all(row(ledger, name)[1] for name in names), "each to be kept")
        one.process.send_signal(signal.SIGKILL)
        assert all(isinstance(end, Exception) for end in await speaking), "nobody goes on"
        await quiet(there)

    async def again(name: str) -> list[str]:
        data, items, _ = row(ledger, name)
        async with voice(at, key, name) as one:
            await one.until("session.updated")
            await one.ask("Are you there?")
        told = there.links[-1].received[: 1 + len(items)]
        wrong = told[0]["session"] != data["session"] or [e["item"] for e in told[1:]] != items
        return [f"{name}: something else is replayed than was kept"] * wrong

    for number in range(10):
        log = tmp_path / f"log{number}"
        with gateway(url, redis_server, log, **environment(there)) as one:
            talk(lambda one=one: story(one))
        began = time.monotonic()
        wrong = [each for name in names for each in asyncio.run(again(name))]
        tally.recovered((time.monotonic() - began) / len(names))
        tally.ran()
        tally.check(wrong)


@pytest.mark.long
def test_a_reset_in_the_middle_of_a_storm_ends_every_call_once_and_leaves_nothing(
    at: Gateway, url: str, redis_server: str, there: Provider, tally: Tally, tmp_path: Path
):
    """Pages are at one gateway and telephones at another, and new calls come all the time."""
    tally.fault = "resetAllSessions while calls begin and end, two gateways"
    account = new_name("reset")
    key, operator = key_of(url, account), key_of(url, account, "operate")
    there.pace = 0.02
    resets, ends = list[int](), list[int]()

    async def practise(other: Gateway) -> None:
        call = await asyncio.to_thread(make, at, key, CONFIG)
        here, elsewhere = (one.url.replace("http", "ws") for one in (at, other))
        media = call["media_url"].replace(here, elsewhere)
        async with side(call["frontend_url"]) as page, side(media) as phone:
            with suppress(ConnectionClosed):  # the call was reset before its telephone came
                await phone.start()
            assert (await page.status("ended"))["reason"] == "reset"
            assert (await page.closed())[0] == 1000
            ends.append(sum(e.get("status") == "ended" for e in page.got))

    async def practise_again(other: Gateway) -> None:
        for _ in range(5):
            await practise(other)

    async def story(other: Gateway) -> None:
        async with asyncio.TaskGroup() as group:
            each = [group.create_task(practise_again(other)) for _ in range(8)]
            while not all(one.done() for one in each):
                await asyncio.sleep(0.7)
                answer = await asyncio.to_thread(post, at, operator, "/v1/calls/reset")
                resets.append(answer.json()["ended"])
                tally.ran()
        began = time.monotonic()
        await quiet(there)
        tally.recovered(time.monotonic() - began)

    talk(lambda: calm(at, key, there, 10))
    before = count(at)
    with gateway(url, redis_server, tmp_path / "log", **environment(there)) as other:
        talk(lambda: story(other))
    talk(lambda: calm(at, key, there, 10))
    tally.check(left(before, at) + ["an end was not told once"] * (ends != [1] * 40))
    assert max(tally.recoveries) < 2 * PATIENCE
    assert sum(resets) == 40


@pytest.mark.long
def test_postgres_is_away_and_conversations_go_on(
    url: str, redis_server: str, there: Provider, ledger: Connection, tally: Tally,
    tmp_path: Path,
):  # fmt: skip
    """Whoever speaks goes on; all is kept and charged, once, when Postgres is back."""
    tally.fault = "Postgres is away for 20 s while 5 speak"
    account = new_name("away")
    key = key_of(url, account)
    ledger.execute("update accounts set token_remaining = 100000 where id = %s", (account,))
    there.used = 10
    names = [new_name("away") for _ in range(5)]
    back = asyncio.Event()

    async def outage(wire: Wire) -> None:
        await holds(lambda: len(there.open_links) == len(names), "all to speak")
        wire.refusing = True
        wire.cut()
        await asyncio.sleep(20)
        wire.refusing = False
        back.set()

    async def story(one: Gateway, wire: Wire) -> list[list[str]]:
        said = await all_speak(back, one, key, names, outage(wire))
        asked = sum(len(each) for each in said)
        await holds(lambda: _spent(ledger, account) == 10 * asked, "each charge, once")
        for name, each in zip(names, said, strict=True):
            await holds(lambda n=name, s=each: instructions(ledger, n, account) == s[-1], name)
        return said

    with (
        wired(url) as wire,
        gateway(wire.url, redis_server, tmp_path / "log", **environment(there)) as one,
    ):
        said = asyncio.run(story(one, wire))
    tally.ran()
    wrong = [
        f"{name}: other items are kept than were said"
        for name, each in zip(names, said, strict=True)
        if users(row(ledger, name, account)[1])[-50:] != [f"say {one}" for one in each][-50:]
    ]
    tally.check(wrong + ["nobody went on"] * (min(len(each) for each in said) < 5))


def _spent(ledger: Connection, account: str) -> int:
    found = ledger.execute("select token_remaining from accounts where id = %s", (account,))
    (left,) = found.fetchone() or (0,)
    return 100_000 - left
