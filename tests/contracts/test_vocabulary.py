"""Every way of ending that the CLI has a word for is in the table: read out of its program.

The program carries its own description of what it writes (zod schemas, in minified
JavaScript): names of functions change with each build, the words in quotes do not. A CLI
that has a new word fails here: give it a class in worker/failures/vocabulary.py, or, if it is a kind of
message, say what becomes of it in messages.txt.
"""

import mmap
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from worker.failures import vocabulary
from worker.failures.sentences import SENTENCES
from worker.failures.verdicts import AGENT, BLAMED, ELSEWHERE, TRIES
from worker.sandbox.leash import cli

LISTS = re.compile(rb'\[(?:"\w+",?){2,}\]')
SYSTEM = re.compile(rb'type:[\w$]+\("system"\),subtype:[\w$]+\("(\w+)"\)')
MESSAGE = re.compile(rb'\((\{type:[\w$]+\("([a-z_]+)"\))')
OF_A_SESSION = re.compile(rb"[,{](session_id|uuid):[\w$]+\(")
FIELD = re.compile(
    rb"\b(compact_result|compact_metadata:[\w$]+\(\{trigger):[\w$]+\((\[[^\]]*\])\)"
)
STATUS = re.compile(rb'\(\[((?:[\w$]+\("\w+"\),)*[\w$]+\("compacting"\)[^\]]*)\]\)')
MESSAGES = Path(__file__).with_name("messages.txt")
LARGEST = 80_000  # bytes of one description


@dataclass(frozen=True)
class Words:
    """What the CLI's program lists, and the messages that it describes."""

    lists: list[list[str]]
    messages: set[str]
    fields: dict[str, set[str]]  # the values of some

    def among(self, *known: str) -> set[str]:
        """The words of the lists that have all of these."""
        found = [words for words in self.lists if set(known) <= set(words)]
        assert found, f"the CLI has no list with {known}: look how it tells that now"
        return {word for words in found for word in words}


@pytest.fixture(scope="module")
def words() -> Words:
    with (
        Path(cli()).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as program,
    ):
        source = program[program.find(b"(c) Anthropic PBC") :]
    lists = [re.findall(r'"(\w+)"', found.decode()) for found in LISTS.findall(source)]
    of_system = {f"system/{name.decode()}" for name in SYSTEM.findall(source)}
    of_type = {
        found[2].decode()
        for found in MESSAGE.finditer(source)
        if OF_A_SESSION.search(_object(source, found.start(1)))
    }
    fields = {
        found[1].decode().partition(":")[0]: set(re.findall(r'"(\w+)"', found[2].decode()))
        for found in FIELD.finditer(source)
    }
    fields["status"] = set(re.findall(r'"(\w+)"', b"".join(STATUS.findall(source)).decode()))
    return Words(lists, of_system | of_type, fields)


def _object(source: bytes, begin: int) -> bytes:
    """The `{…}` that begins there; braces in strings are none."""
    depth = quote = 0
    at = begin
    while at < min(len(source), begin + LARGEST):
        match source[at]:
            case 0x5C if quote:  # a backslash
                at += 1
            case c if quote:
                quote = 0 if c == quote else quote
            case 0x22 | 0x27 | 0x60 as c:
                quote = c
            case 0x7B:
                depth += 1
            case 0x7D:
                depth -= 1
                if not depth:
                    break
            case _:
                pass
        at += 1
    return source[begin : at + 1]


@pytest.mark.parametrize(
    ("table", "known"),
    [
        (vocabulary.ENDINGS, ("blocking_limit", "aborted_tools")),
        (vocabulary.ENDINGS, ("budget_exhausted", "structured_output_retry_exhausted")),
        (vocabulary.KINDS, ("authentication_failed", "model_not_found")),
        (vocabulary.CAUSES, ("tool_history_mismatch", "connection_failed")),
        (vocabulary.STARTUP, ("cwd_unavailable", "bypass_root")),
        (vocabulary.SUBTYPES, ("error_max_turns", "error_during_execution")),
    ],
    ids=["terminal_reason", "terminal_reason-2", "error", "api_error", "startup", "subtype"],
)
def test_each_word_for_an_ending_has_a_class(
    words: Words, table: dict[str, str | None], known: tuple[str, ...]
):
    assert words.among(*known) - table.keys() == set()


def test_what_a_compaction_can_come_to_and_a_session_be_busy_with_is_known(words: Words):
    """worker/agent/listening.py takes any result but `failed` as a success, and no status as an end."""
    assert words.fields == {
        "compact_result": {"success", "failed"},
        "compact_metadata": {"manual", "auto"},
        "status": {"compacting", "requesting"},
    }


def test_of_each_message_it_is_said_what_becomes_of_it(words: Words):
    assert {"assistant", "result", "tool_progress", "stream_event"} <= words.messages
    assert {"system/init", "system/api_retry", "system/status"} <= words.messages
    lines = MESSAGES.read_text().splitlines()
    said = dict(line.split() for line in lines if not line.startswith("#"))
    assert set(said.values()) == {"taken", "life"}
    assert words.messages - said.keys() == set()


def test_each_class_has_a_verdict_and_a_sentence():
    tables = (
        vocabulary.ENDINGS,
        vocabulary.KINDS,
        vocabulary.CAUSES,
        vocabulary.STARTUP,
        vocabulary.SUBTYPES,
        vocabulary.STATUSES,
    )
    named = {word for table in tables for word in table.values() if word}
    assert named - AGENT.keys() == set()
    told_as_they_are = {
        *("start_failed", "cli_missing", "agent_home_unwritable", "id_in_use"),
        *("killed", "crashed", "session_unknown", "workspace_missing", "message_too_large"),
        *("box_refused", "egress_away"),
    }
    assert AGENT.keys() - SENTENCES.keys() - told_as_they_are == set()


def test_what_is_about_the_request_counts_against_no_session():
    of_the_request = {
        *("max_turns", "budget_exhausted", "max_output_tokens", "malformed_tool_use"),
        *("context_thrashing", "message_too_long", "prompt_too_long", "blocking_limit"),
        *("structured_output_retry_exhausted", "turn_timeout"),
    }
    assert of_the_request & BLAMED == set()
    assert not BLAMED & ELSEWHERE
    assert TRIES.keys() <= AGENT.keys()
    # A class that is not in the table at all would count at once.
    assert of_the_request - {"turn_timeout"} <= AGENT.keys()
