"""Two beats and two relays, one that is killed, and none of them for a while."""

import random

import pytest

from tests.acceptance.outside import LONG
from tests.faults.conftest import Tally
from tests.faults.transport.struck import BEATS, EVERY, RELAYS, Struck
from tests.waiting import wait_until
from worker.cli import signs

pytestmark = [pytest.mark.long, pytest.mark.timeout(360)]

SCRIPTED = "agent scripted"
GONE = signs.SILENT + 3  # seconds without its pulse until doctor takes beat for dead


def test_two_beats(struck: Struck, tally: Tally):
    tally.fault = "two beats"
    asked, ticked = received(struck), ticks(struck)
    (began,) = struck.baton.row("select now() as at").values()
    wait_until(
        lambda: (
            received(struck) - asked >= ticks(struck) - ticked + 2 and ticks(struck) > ticked
        ),
        timeout=LONG,
        description="both beats to have asked for the same period",
    )
    tally.ran(received(struck) - asked)
    tally.note = f"{ticks(struck) - ticked} periods done once each"
    wait_until(
        lambda: (
            not struck.baton.rows(
                "select 1 from ticks where ended_at is null and at > %s"
                " and at < now() - interval '5 seconds'",
                began,
            )
        ),
        timeout=LONG,
        description="none to be owed",
    )
    tally.check(struck.wrong())


def test_no_beat_for_a_while(struck: Struck, tally: Tally, long: bool):
    tally.fault = "no beat for a while"
    (old,) = struck.chats(1)
    struck.ended([old])
    for name in BEATS:
        struck.baton.up.supervisor.hold(name)
    struck.flush()  # what earlier tests left, ticks that nobody has received among it
    struck.stay(2)
    session = struck.baton.head(struck.baton.job(old)["project_id"])
    struck.baton.conn.execute(
        """
        update project_ai_session_metrics set last_used_at = now() - interval '25 hours'
         where session_id = %s
        """,
        (session,),
    )
    before = ticks(struck)
    struck.stay(GONE if long else EVERY)
    assert ticks(struck) == before
    if long:
        state, told = struck.doctor()["beat"]
        assert (state, "no clean-up is asked for" in told) == ("warn", True)
    back = period(struck)
    for name in BEATS:
        struck.baton.up.supervisor.resume(name)
    wait_until(lambda: ticks(struck) > before, timeout=LONG, description="the next tick")
    wait_until(
        lambda: struck.baton.rows(
            "select 1 from project_ai_session_metrics where session_id = %s and stale_at is not null",
            session,
        ),
        timeout=LONG,
        description="what was missed to be made up for",
    )
    tally.ran()
    made_up = struck.baton.rows("select period from ticks where name = 'mark_stale'")
    assert len([row for row in made_up if row["period"] >= back]) <= period(struck) - back + 1
    assert len(made_up) == ticks(struck), "no period that was missed is done now"
    assert struck.doctor()["beat"][0] == "ok"
    tally.check(struck.wrong([old]))


def test_two_relays_of_which_one_is_killed(struck: Struck, tally: Tally, seed: int, long: bool):
    tally.fault, tally.simulated = "two relays, one of them killed", SCRIPTED
    drawn = random.Random(seed)
    asked = struck.builds(24 if long else 6)
    for number in range(10 if long else 2):
        struck.under_way(asked, number / 12)
        struck.baton.up.supervisor.kill(drawn.choice(RELAYS))
        tally.ran()
        tally.recovered(struck.taken())
    struck.ended(asked)
    tally.check(struck.wrong(asked))


def test_no_relay_for_a_while(struck: Struck, tally: Tally, long: bool):
    tally.fault, tally.simulated = "no relay for a while", SCRIPTED
    (chain,) = struck.builds(1, "pause 2")
    struck.baton.until(chain, "running")
    for name in RELAYS:
        struck.baton.up.supervisor.hold(name)
    asked = struck.chats(5)
    struck.ended([chain])  # its worker publishes what follows
    assert struck.open(asked) == len(asked), "nobody has told a worker of them"
    if long:
        struck.stay(11)
        state, told = struck.doctor()["relay"]
        assert (state, "has been due" in told) == ("fail", True)
    for name in RELAYS:
        struck.baton.up.supervisor.resume(name)
    tally.ran()
    tally.recovered(struck.taken())
    struck.ended(asked)
    assert not long or struck.doctor()["relay"][0] == "ok"
    tally.check(struck.wrong([chain, *asked]))


def ticks(struck: Struck) -> int:
    """How many periods of one of the periodic jobs were claimed."""
    return len(struck.baton.rows("select 1 from ticks where name = 'mark_stale'"))


def received(struck: Struck) -> int:
    """How often a beat has asked for it."""
    return sum(struck.baton.up.log(beat).count("upkeep-mark_stale") for beat in BEATS)


def period(struck: Struck) -> int:
    """The number of the period that it is now."""
    return struck.baton.row("select floor(extract(epoch from now()) / %s)::bigint as n", EVERY)[
        "n"
    ]
