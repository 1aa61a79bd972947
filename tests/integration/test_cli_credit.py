"""`baton credit`: what an account's voice sessions may still use."""

import pytest
from psycopg import Connection

from db.live import keys
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
