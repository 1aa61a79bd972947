"""A stand-in model that reads what it has to: the files of an update that its conversation has not.

What is in the conversation is looked up in the request itself, so a fork, a compaction and a fresh
session are each met as they are. Some files every update needs, and some are its own; a model that
knows none of them looks around first, as an agent without context does.

How much that is, nobody has measured. So there are two: `few` reads five files at the most, for
one change; `many` ten, for four, with more searches. Of agents on real code bases 7 to 10 files a
task have been told, and several times the cost of `few` (docs/cost.md).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.standin.conversation import Conversation
from dev.standin.messages import JSON
from dev.standin.model import Model, Seen
from dev.standin.reply import Reply, reply
from dev.standin.scenario import Answer, Rule, Say, Scenario, Step, Use

MARK = re.compile(r"\[update (\d+)\]")
SAMPLE = 80  # characters by which a file is recognised
LOOKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Glob", {"pattern": "**/*.py"}),
    ("Grep", {"pattern": "^class ", "output_mode": "content", "head_limit": 100}),
    ("Grep", {"pattern": "^def ", "output_mode": "content", "head_limit": 100}),
    ("Grep", {"pattern": "^import ", "output_mode": "content", "head_limit": 100}),
)
ANSWER = {
    "summary": "A task queue in Python.",
    "recommendations": [
        {"title": "Measure it", "reason": "Nobody knows what it costs.", "priority": "high"}
    ],
}


@dataclass(frozen=True, slots=True)
class Task:
    """What an update asks of an agent: files that all need, files of its own, how often it looks
    around if it knows none of them, files that it writes, and characters of a file that is read."""

    common: int
    own: int
    looks: int
    writes: int
    sizes: range


TASKS = {
    "few": Task(3, 2, 2, 1, range(5_000, 9_000)),
    "many": Task(7, 3, 4, 4, range(3_000, 15_000)),
}


@dataclass(frozen=True, slots=True)
class Needed:
    """A file of the code base, from its root, and a piece of its text."""

    path: str
    sample: str


def candidates(root: Path, sizes: range) -> list[Needed]:
    """Files of such sizes, each read in one go, in an order that stays."""
    found = list[Needed]()
    for file in sorted(root.rglob("*.py")):
        text = file.read_text(errors="replace")
        if len(text) in sizes:
            lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 50]
            if lines:
                found.append(
                    Needed(str(file.relative_to(root)), lines[len(lines) // 2][:SAMPLE])
                )
    return found


class Reader(Model):
    """The stand-in, with a code base that its prompts are about."""

    files: list[Needed]
    task: Task

    def _reply(self, seen: Seen, said: Conversation) -> Reply:
        found = list(MARK.finditer(said.prompt))
        if seen.kind != "turn" or not found:
            return super()._reply(seen, said)
        steps = tuple(self._steps(int(found[-1][1]), seen))
        return reply(Scenario("reader", (Rule("update", None, None, None, steps),)), said)

    def _steps(self, number: int, seen: Seen) -> Iterator[Step]:
        common, own = self.files[: self.task.common], self.files[self.task.common :]
        first = number * self.task.own
        needed = common + [own[(first + n) % len(own)] for n in range(self.task.own)]
        before = _before(seen, number)
        missing = [file for file in needed if _told(file.sample) not in before]
        if len(missing) == len(needed):
            yield from (Use((look,)) for look in LOOKS[: self.task.looks])
        for file in missing:
            yield Use((("Read", {"file_path": f"{{cwd}}/{file.path}"}),))
        text = f"What update {number} changes.\n" * 40
        for part in range(self.task.writes):
            path = f"{{cwd}}/changes/{number}-{part}.md"
            yield Use((("Write", {"file_path": path, "content": text}),))
        yield Say(f"Update {number} is made.")


def _before(seen: Seen, number: int) -> str:
    """The conversation up to this update's prompt, as JSON. What a compaction has kept of files
    stands in the same message, before the prompt."""
    told: list[JSON] = seen.body.get("messages") or []
    text = "\n".join(json.dumps(each) for each in told)
    return text.rpartition(f"[update {number}]")[0]


def _told(text: str) -> str:
    return json.dumps(text)[1:-1]


def scenario() -> Scenario:
    """What is answered to all that is no update."""
    when = re.compile("Look at the project", re.IGNORECASE)
    documents = re.compile("DOCUMENTATION", re.IGNORECASE)
    file = {
        "file_path": "{cwd}/DOCUMENTATION.md",
        "content": "# Documentation\n" + "A line.\n" * 60,
    }
    return Scenario(
        "study",
        (
            Rule("recommendations", when, None, None, (Answer(ANSWER),)),
            Rule(
                "documentation", documents, None, None, (Use((("Write", file),)), Say("Done."))
            ),
            Rule("other", None, None, None, (Say("Done."),)),
        ),
    )
