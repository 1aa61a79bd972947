"""A session that the CLI recorded without Baton is taken in, and gone on from."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from claude_agent_sdk import ClaudeAgentOptions, query
from psycopg import Connection

from db.transcripts import transcripts
from tests.commandline import Baton, bare
from tests.invariants import violations
from tests.ledger import contents
from tests.running import AtWork, P, U, at_work
from worker.client import Update

__all__ = ["at_work", "bare"]

Entry = dict[str, Any]


def recorded(at_work: AtWork, folder: Path, *prompts: str) -> Path:
    """The file of a session of these prompts, as the CLI leaves it in its own directory."""
    session, folder = str(uuid4()), folder.resolve()
    (folder / "shop").mkdir(parents=True)
    for n, prompt in enumerate(prompts):
        asyncio.run(_turn(at_work, folder, prompt, session, resumes=n > 0))
    (file,) = folder.glob(f"config/projects/*/{session}.jsonl")
    return file


async def _turn(at_work: AtWork, folder: Path, prompt: str, session: str, *, resumes: bool):
    options = ClaudeAgentOptions(
        cwd=folder / "shop",
        session_id=None if resumes else session,
        resume=session if resumes else None,
        permission_mode="acceptEdits",
        setting_sources=[],
        env={
            "ANTHROPIC_BASE_URL": at_work.model.url,
            "ANTHROPIC_API_KEY": "stand-in",
            "CLAUDE_CONFIG_DIR": str(folder / "config"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
    )
    async for _ in query(prompt=prompt, options=options):
        pass


def test_a_session_of_the_cli_is_imported_and_the_next_update_resumes_it(
    at_work: AtWork, bare: Baton, tmp_path: Path
):
    delegates = (
        'use Agent {"description": "d", "prompt": "say hi", "subagent_type": "general-purpose"}'
    )
    file = recorded(at_work, tmp_path / "before", "write a.txt: one", delegates)

    took = bare("--json", "import-session", P, str(file), "--user", U)
    assert took.code == 0, took.err
    assert took.document["session_id"] == file.stem == at_work.head()
    assert took.document["head"] is True
    assert took.document["sub_agents"] == 1
    assert took.document["context_tokens"] > 1000
    assert at_work.moves() == [("operator", "imported", None, file.stem, None)]
    assert [told["session"] for told in at_work.events("session.moved")] == [file.stem]
    raw = at_work.value("select raw_cost_usd from project_ai_session_metrics")
    assert raw > 0

    for left in sorted(tmp_path.glob("before/config/projects/**/*"), reverse=True):
        left.unlink() if left.is_file() else left.rmdir()
    job = at_work.one(Update(project=P, user=U, prompt="write b.txt: two"))

    assert at_work.tries(job.id) == [(file.stem, "resumed", None)]
    assert at_work.model.requests[-1].prompts == (
        "write a.txt: one",
        delegates,
        "write b.txt: two",
    )
    (turn,) = at_work.turns(job.id)
    assert 0 < turn["cost_usd"] < raw  # the turn's own, and not what was paid before
    assert violations(at_work.conn) == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small session, as the CLI would have written it."""
    path = tmp_path / f"{uuid4()}.jsonl"
    write(path, said(path.stem))
    return path


def said(session: str) -> list[Entry]:
    asked = {"type": "user", "uuid": str(uuid4()), "parentUuid": None, "sessionId": session}
    asked |= {"message": {"role": "user", "content": "hello"}, "promptId": str(uuid4())}
    usage = {"input_tokens": 10, "cache_read_input_tokens": 200, "output_tokens": 3}
    answer = {"type": "assistant", "uuid": str(uuid4()), "parentUuid": asked["uuid"]}
    answer |= {"message": {"role": "assistant", "model": "m", "content": [], "usage": usage}}
    costs = {"type": "cost-state", "totalCostUSD": 0.5, "sessionId": session}
    return [asked, answer | {"sessionId": session, "version": "2.0.9"}, costs]


def write(path: Path, entries: list[Entry]) -> None:
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))


@pytest.fixture
def take(bare: Baton, dsn: str) -> Callable[..., Any]:
    def run(*arguments: object, project: str = P, user: str = U) -> Any:
        given = [str(one) for one in arguments]
        return bare("import-session", project, *given, "--user", user, DATABASE_URL=dsn)

    return run


def test_its_figures_are_entered_into_the_registry(conn: Connection, take: Any, file: Path):
    assert take(file).code == 0
    assert conn.execute(
        """
        select status, is_resumable, context_tokens, raw_cost_usd::float, cost_usd::float,
               turns_since_start, model, cli_version from project_ai_session_metrics
        """
    ).fetchall() == [("active", True, 213, 0.5, 0.0, 1, "m", "2.0.9")]


def test_the_head_that_a_product_had_set_gets_its_transcript(
    conn: Connection, take: Any, file: Path
):
    conn.execute(
        "insert into projects (project_id, user_id, last_ai_session_id) values (%s, %s, %s)",
        (P, U, file.stem),
    )
    conn.execute(
        "insert into project_ai_session_metrics (session_id, project_id, is_resumable)"
        " values (%s, %s, false)",
        (file.stem, P),
    )
    assert take(file).code == 0
    row = conn.execute(
        "select user_id, is_resumable from project_ai_session_metrics"
    ).fetchone()
    assert row == (U, True)
    assert conn.execute("select count(*) from session_transitions").fetchone() == (0,)


def test_without_head_the_projects_head_stays(conn: Connection, take: Any, file: Path):
    assert take(file).code == 0
    other = file.with_name(f"{uuid4()}.jsonl")
    write(other, said(other.stem))
    refused = take(other)
    assert refused.code == 1
    assert refused.err.startswith(f"Project {P} has a head already ({file.stem}): ")
    assert take(other, "--no-head").code == 0
    head = conn.execute("select last_ai_session_id from projects").fetchone()
    assert head == (file.stem,)


def test_a_file_of_another_name_needs_the_sessions_id(take: Any, file: Path):
    session, renamed = file.stem, file.rename(file.with_name("old.jsonl"))
    assert take(renamed).err.startswith("old.jsonl is not named after a session")
    assert take(renamed, "--session", session).code == 0


def test_half_a_last_line_is_left_out_as_the_cli_does(conn: Connection, take: Any, file: Path):
    whole = file.read_text()
    file.write_text(f'{whole}{{"type": "user", "sess')
    assert take(file).code == 0
    kept = transcripts.load(conn, P, file.stem)
    assert kept == [json.loads(line) for line in whole.splitlines()]


def with_a_gap(session: str, *, compacted: bool) -> list[Entry]:
    """What a CLI left that named, after it had compacted, an entry that it never wrote."""
    asked, answer, costs = said(session)
    boundary = {"type": "system", "subtype": "compact_boundary", "uuid": str(uuid4())}
    after = {**asked, "uuid": str(uuid4()), "parentUuid": str(uuid4())}
    after["message"] = {"role": "user", "content": "write b.txt: behind the gap"}
    last = {**answer, "uuid": str(uuid4()), "parentUuid": after["uuid"]}
    last["message"] = {**answer["message"], "content": [{"type": "text", "text": "Done."}]}
    between = [boundary | {"parentUuid": None, "sessionId": session}] if compacted else []
    return [asked, answer, *between, after, last, costs]


def test_a_gap_that_a_compaction_of_the_cli_left_is_told_and_it_goes_on_from_there(
    at_work: AtWork, bare: Baton, tmp_path: Path
):
    path = tmp_path / f"{uuid4()}.jsonl"
    write(path, with_a_gap(path.stem, compacted=True))
    took = bare("import-session", P, str(path), "--user", U)
    assert (took.code, took.err) == (0, "")
    assert "goes on from behind the gap, and 2 messages before that are not known" in took.out
    job = at_work.one(Update(project=P, user=U, prompt="say and now?"))
    assert (job.state, at_work.tries(job.id)) == ("done", [(path.stem, "resumed", None)])
    assert at_work.model.requests[-1].prompts == ("write b.txt: behind the gap", "say and now?")
    assert violations(at_work.conn) == []


def test_a_gap_that_no_compaction_explains_is_refused(take: Any, tmp_path: Path):
    path = tmp_path / f"{uuid4()}.jsonl"
    write(path, with_a_gap(path.stem, compacted=False))
    refused = take(path)
    assert (refused.code, "find a whole copy of it" in refused.err) == (1, True)


def test_what_is_in_the_store_already_is_not_imported_again(take: Any, file: Path):
    assert take(file).code == 0
    assert "is known already" in take(file).err


def test_no_other_project_and_no_other_user_gets_a_session(take: Any, file: Path):
    assert take(file).code == 0
    assert "is known already" in take(file, project="other").err
    assert "cannot be had here" in take(file, user="eve").err


def broken(entries: list[Entry]) -> list[Entry]:
    return [*entries[1:2], *entries[2:]]


BAD: dict[str, tuple[Callable[[list[Entry]], Any], str]] = {
    "no JSON": (lambda e: f"{json.dumps(e[0])}\n{{\n", "Line 2 of "),
    "no object": (lambda e: "[1]\n", "is no JSON object"),
    "not UTF-8": (lambda e: b'{"type": "\xff"}\n', "is no JSON object"),
    "empty": (lambda e: "", "has no message of user or agent"),
    "no message": (lambda e: [e[2]], "has no message of user or agent"),
    "broken": (broken, "lacks a message that a later one answers"),
    "of another session": (
        lambda e: [e[0] | {"sessionId": "x"}],
        "is of session x, and not of",
    ),
    "another form": (lambda e: [e[0], {**e[1], "message": 7}], "is not in the form"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    conn: Connection, take: Any, file: Path, bad: str
):
    make, sentence = BAD[bad]
    match make([json.loads(line) for line in file.read_text().splitlines()]):
        case str() as text:
            file.write_text(text)
        case bytes() as raw:
            file.write_bytes(raw)
        case entries:
            write(file, entries)
    before = contents(conn)

    done = take(file)

    assert (done.code, done.out) == (1, "")
    assert sentence in done.err
    assert len(done.err.splitlines()) == 1
    assert contents(conn) == before
    assert conn.execute("select count(*) from transcript_entries").fetchone() == (0,)


def test_a_refused_project_is_not_made(conn: Connection, take: Any, file: Path):
    before = contents(conn)
    assert "must be 1 to 200 letters" in take(file, project="a/b").err
    assert "There is no file" in take(file.with_name(f"{uuid4()}.jsonl")).err
    assert contents(conn) == before
