"""What is printed: escaped, aligned, and in units that people read."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.core.moments import Beyond
from worker.cli import console
from worker.cli.pages.layout import Facts, Table
from worker.cli.screen import Screen, as_json
from worker.text.units import clean, duration, money, shortened, size


@given(st.text())
def test_nothing_that_is_shown_can_steer_a_terminal(text: str):
    shown = clean(text)
    assert shown.isprintable()
    if text.isprintable() and text:
        assert shown == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"), ("", "-"), (True, "yes"), (0, "0"), ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("\udcff", r"\udcff"), (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02 03:04:05Z"),
    ],
)  # fmt: skip
def test_every_value_is_one_line(value: object, shown: str):
    assert clean(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"), (0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 m 1 s"), (3600, "1 h 0 m"),
        (90_000, "1 d 1 h"), (-75, "-1 m 15 s"),
    ],
)  # fmt: skip
def test_a_duration_has_two_units(seconds: float | None, shown: str):
    assert duration(seconds) == shown


def test_amounts_are_exact_enough_and_estimates_marked():
    assert money(Decimal("0.00004")) == "$0.0000"
    assert money(Decimal("1.5"), estimated=True) == "~$1.5000"
    assert (size(999), size(1500), size(3 * 10**9)) == ("999 B", "1.5 kB", "3.0 GB")
    assert shortened("a  b\n c", 4) == "a b…"


def test_lines_are_aligned_under_their_columns(capsys: pytest.CaptureFixture[str]):
    table = Table(("id", "n"), [("a", 1), ("long\x07", 22)], "none", right=frozenset({"n"}))
    Screen().show(
        None, [Facts([("name", "x")]), table, Table(("c",), [], "Nothing.", title="T")]
    )
    assert capsys.readouterr().out.splitlines() == [
        "name: x", "id         n", "a          1", r"long\x07  22", "", "T:", "Nothing.",
    ]  # fmt: skip


def test_a_document_holds_every_type_of_the_ledger(capsys: pytest.CaptureFixture[str]):
    values = {
        "id": UUID(int=7), "at": datetime(2026, 1, 2, tzinfo=UTC), "cost": Decimal("0.25"),
        "age": timedelta(minutes=1), "facts": Facts([]), "text": "\x1b\udcff",
    }  # fmt: skip
    Screen(json=True).show(values, ["not printed"])
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {
        "id": str(UUID(int=7)), "at": "2026-01-02T00:00:00+00:00", "cost": 0.25, "age": 60.0,
        "facts": {"rows": [], "title": ""}, "text": "\x1b\udcff",
    }  # fmt: skip


def test_what_python_cannot_hold_is_shown_as_it_is_with_a_mark():
    at = Beyond.of("infinity")
    assert (clean(at), at > datetime.now(UTC)) == ("infinity (!)", True)
    assert Beyond.of("0044-03-15 00:00:00+00 BC") < datetime.now(UTC)
    assert clean(datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-12)))).endswith(
        "(!)"
    )
    assert duration(float("inf")) == duration(float("nan")) == "for ever (!)"
    assert json.loads(as_json({"at": at, "cost": Decimal("NaN"), "s": float("inf")})) == {
        "at": "infinity", "cost": None, "s": None,
    }  # fmt: skip


def test_a_mapping_is_read_as_a_sentence():
    told = {"text": "a\nb", "files": ["x", "y"], "more": {"n": 1}, "none": []}
    assert clean(told) == r"text: a\nb, files: 2 (x, y), more: (n: 1), none: none"
    moments = {"at": "2026-01-02T04:04:05.678901+01:00", "no": "2026-99-99T04:04:05Z"}
    assert clean(moments) == "at: 2026-01-02 03:04:05Z, no: 2026-99-99T04:04:05Z"
    assert clean({"f": [str(n) for n in range(9)]}) == "f: 9 (0, 1, 2, 3, 4, …)"


@pytest.mark.parametrize("arguments", [["--version", "--json"], ["--json", "--version"]])
def test_the_version_too_is_a_document_where_one_is_wanted(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    assert console.main(arguments) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"version"}
