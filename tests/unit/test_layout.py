"""A page fits its width: nothing is cut off without a sign, and no id is broken over lines."""

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.cli.pages.layout import Facts, Name, Table, cells, drawn, plain, wrapped

STYLE = re.compile(r"\x1b\[\d+m")
WORDS = st.text(st.characters(codec="ascii", exclude_categories=("C", "Z")), min_size=1)
SENTENCES = st.lists(WORDS, min_size=1, max_size=20).map(" ".join)
WIDTHS = st.integers(20, 200)
ID = str(UUID(int=0x1A2B3C4D_0000_4000_8000_000000000001))


@given(SENTENCES, WIDTHS)
def test_wrapping_keeps_every_word_whole(text: str, width: int):
    lines = wrapped(text, width)
    assert " ".join(lines) == text
    assert all(len(line) <= width or " " not in line for line in lines)


@given(st.lists(st.tuples(WORDS, WORDS, SENTENCES), min_size=1, max_size=4), WIDTHS)
def test_a_table_loses_nothing_whatever_the_width(rows: list[tuple[str, ...]], width: int):
    table = Table(("id", "state", "why"), rows, "none", words=frozenset({"why"}))
    lines = drawn([table], width, color=False)
    shown = set(" ".join(lines).split())
    told = {word for row in rows for cell in row if cell != "-" for word in cell.split(" ")}
    assert told <= shown
    longest = max(len(word) for word in told)
    assert all(len(line) <= max(width, longest + len("state") + 2) for line in lines)


def test_a_table_gives_way_step_by_step_and_at_last_each_row_is_a_block():
    table = Table(
        ("id", "state", "tries", "why"),
        [(Name(ID, ID[:8]), "queued", 0, "It waits for a worker, and none is online today.")],
        "none",
        right=frozenset({"tries"}),
        words=frozenset({"why"}),
    )
    assert drawn([table], 80, color=False) == [
        "id        state   tries  why",
        "─" * 73,
        "1a2b3c4d  queued      0  It waits for a worker, and none is online today.",
    ]
    assert drawn([table], 50, color=False)[2:] == [
        "1a2b3c4d  queued      0  It waits for a worker,",
        "                         and none is online today.",
    ]
    assert drawn([table], 40, color=False)[2:] == [
        "1a2b3c4d  queued      0",
        "  It waits for a worker, and none is",
        "  online today.",
    ]
    assert drawn([table], 20, color=False) == [
        "id     1a2b3c4d",
        "state  queued",
        "tries  0",
        "why    It waits for",
        "       a worker, and",
        "       none is",
        "       online today.",
    ]
    assert plain([table])[1].startswith(f"{ID}  queued      0  It waits"), "a pipe has it whole"


def test_what_is_not_said_of_a_row_is_left_out_of_its_block():
    table = Table(("project", "session"), [("p" * 40, None), ("q", "s")], "none")
    assert drawn([table], 30, color=False) == [
        f"project  {'p' * 40}",
        "",
        "project  q",
        "session  s",
    ]


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("aé→", 3), ("漢字", 4), ("e\u0301", 1)]
)
def test_columns_are_counted_as_a_terminal_does(text: str, columns: int):
    assert cells(text) == columns


def test_a_script_without_spaces_is_cut_at_the_width():
    assert wrapped("漢" * 9, 6) == ["漢漢漢"] * 3


def test_facts_hang_under_their_names():
    facts = Facts([("id", ID), ("error", "It broke. " * 5)])
    lines = drawn([facts], 50, color=False)
    assert lines[0] == f"id     {ID}"
    assert all(line.startswith(("error  ", "       ")) for line in lines[1:])
    assert max(map(len, lines)) <= 50


def test_states_are_coloured_where_colours_are_wanted():
    table = Table(("state",), [("failed",)], "none")
    assert "\x1b[31mfailed\x1b[0m" in drawn([table], 80)[-1]
    assert STYLE.sub("", drawn([table], 80)[-1]) == drawn([table], 80, color=False)[-1]
