"""Everything that can be seen in a chain has a line for people."""

import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from worker.cli.live_display import console, drawn
from worker.cli.watch import Happening, line, plain, worth_a_line
from worker.text.units import clean

EVENTS = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
TYPES = re.findall(r"^\| `([a-z_.]+)` \|", EVENTS, re.MULTILINE)
WITHIN = ("turn.began", "turn.ended", "tool", "tool.done", "writing", "text", "model.retry")


def seen(what: str, **body: object) -> Happening:
    return Happening(datetime(2026, 1, 2, tzinfo=UTC), what, uuid4(), "build", "build", body)


@pytest.mark.parametrize("what", [*TYPES, *WITHIN])
def test_each_type_is_told_even_without_a_body(what: str):
    assert line(seen(what))
    assert drawn(seen(what)).plain


def test_the_documented_types_were_found():
    assert {"job.queued", "job.done", "session.moved"} <= set(TYPES)


def test_lines_say_what_matters():
    assert line(seen("tool", name="Write", about="index.html")) == "Write index.html"
    assert line(seen("job.done", result={"skipped": "below_threshold"})) == (
        "done (skipped: below_threshold)"
    )
    assert (
        line(seen("job.waits", delay=12.34, error="Overloaded."))
        == "waits for 12 s: Overloaded."
    )
    assert plain(seen("job.failed", error="No.")) == "00:00:00Z  build       failed: No."
    assert plain(seen("turn.began", resumes=True)).endswith("resumes")


def test_a_tool_call_that_ended_well_needs_no_line():
    assert not worth_a_line(seen("tool.done", error=False))
    assert worth_a_line(seen("tool.done", error=True))


def test_what_an_agent_says_is_escaped():
    told = seen("text", text="\x1b[2Jgone [bold]x[/bold]")
    assert "\x1b" not in clean(plain(told))
    assert "\x1b" not in drawn(told).plain
    assert "[bold]x[/bold]" in drawn(told).plain


def test_a_pipe_has_no_width_unless_columns_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("COLUMNS", raising=False)
    console().print("word " * 100)
    assert len(capsys.readouterr().out.splitlines()) == 1
    monkeypatch.setenv("COLUMNS", "60")
    console().print("word " * 100)
    assert len(capsys.readouterr().out.splitlines()) > 1


def test_what_a_chain_waits_for_and_its_silence_have_lines():
    assert line(seen("waits", sentence="No worker is online.")) == "waits: No worker is online."
    assert line(seen("silent", silent_s=75.0)) == "its agent has been silent for 1 m 15 s"
    assert worth_a_line(seen("silent", silent_s=75.0))
    assert not worth_a_line(seen("pulse", silent_s=1.0))


def test_a_session_is_short_in_a_line_of_a_terminal():
    told = seen("session.moved", session="1a2b3c4d-0000-4000-8000-000000000001", source="build")
    assert "session 1a2b3c4d (build, fresh)" in drawn(told).plain
    assert "1a2b3c4d-0000-4000" in plain(told)


def test_a_line_that_waits_names_the_moment_as_all_others_do():
    told = seen("job.parked", until="2026-01-02T03:04:05.678+00:00", error="Limited.")
    assert line(told) == "parked until 2026-01-02 03:04:05Z: Limited."
