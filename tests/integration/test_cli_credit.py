"""`baton credit` and `baton key`: what an account's voice sessions may still use, until when its keys count."""

import pytest
from psycopg import Connection

from db.live import keys
from tests import ledger
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.commandline import baton as baton

LEFT = "select token_remaining, topup_remaining from accounts where id = 'acme'"


def test_credit_is_shown_set_added_to_and_taken_away(baton: Baton, conn: Connection):
    keys.create(conn, "acme", "tests", ["voice"])
    assert baton("credit", "acme").out.strip() == "acme has no limit."
    assert "once it has one" in baton("credit", "acme", "--add", "500").out
    told = baton("credit", "acme", "--set", "1000", "--json").document
    assert told == {
        "account": "acme",
        "token_remaining": 1000,
        "topup_remaining": 500,
        "unlimited": False,
    }
    assert baton("credit", "acme", "--add", "1500").out.strip() == (
        "acme has 3,000 tokens left: 1,000, then 2,000 that were added."
    )
    assert conn.execute(LEFT).fetchone() == (1000, 2000)
    baton("credit", "acme", "--set", "0")
    assert conn.execute(LEFT).fetchone() == (0, 2000), (
        "zero: nothing is left, but what was added"
    )
    baton("credit", "acme", "--unlimited")
    assert conn.execute(LEFT).fetchone() == (None, 2000)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nobody"], "There is no account 'nobody'"),
        (["a\x00b"], "There is no account"),
        (["acme", "--set", "-1"], "--set is a number of tokens"),
        (["acme", "--add", "0"], "--add is a number of tokens"),
        (["acme", "--add", str(10**16)], "--add is a number of tokens"),
        (["acme", "--add", "1", "--set", "1"], "Give one of"),
        (["acme", "--add", "many"], "should be a valid integer"),
    ],
)
def test_what_is_no_credit_changes_nothing(
    baton: Baton, conn: Connection, words: list[str], why: str
):
    keys.create(conn, "acme", "tests", ["voice"])
    ran = baton("credit", *words)
    assert ran.code != 0
    assert why in ran.err
    assert conn.execute(LEFT).fetchone() == (None, 0)


def test_a_key_may_end_by_itself_and_its_end_is_listed(baton: Baton, conn: Connection):
    made = baton("key", "create", "--account", "acme", "--until", "90d", "--json").document
    assert made["expires_at"]
    assert baton("key", "create", "--account", "acme", "--until", "2030-01-31").code == 0
    conn.execute("update api_keys set expires_at = now() where id = %s", (made["id"],))
    dated, ended = baton("key", "list", "--json").document
    assert (dated["expires_at"], dated["expired"]) == ("2030-01-31T00:00:00+00:00", False)
    assert ended["expired"] is True
    shown = baton("key", "list").out
    assert "never used, until 2030-01-31 00:00:00Z" in shown
    assert "never used, ended " in shown


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        ("2001-01-31", 1, "A key must end later than now"),
        ("-1d", 1, "A key must end later than now"),
        ("soon", 2, "neither a length of time, such as 90d, nor a date"),
        ("nand", 2, "neither a length of time"),
        ("200000d", 2, "longer than 100 years"),
    ],
)
def test_an_end_that_no_key_can_have_is_refused(
    baton: Baton, conn: Connection, end: str, code: int, told: str
):
    refused = baton("key", "create", "--account", "acme", f"--until={end}")
    assert refused.code == code
    assert told in " ".join(refused.err.split())
    assert ledger.one(conn, "select count(*) from api_keys") == 0
