"""A stand-in model that reads what it has to: the files of an update that its conversation has not.

What is in the conversation is looked up in the request itself, so a fork, a compaction and a fresh
session are each met as they are. An update needs three files that every update needs, and two of
its own; a model that knows none of them looks around first, as an agent without context does.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from dev.standin.conversation import Conversation
from dev.standin.messages import JSON
from dev.standin.model import Model, Seen
from dev.standin.reply import Reply, reply
from dev.standin.scenario import Answer, Rule, Say, Scenario, Step, Use

MARK = re.compile(r"\[update (\d+)\]")
COMMON, OWN = 3, 2  # files that an update needs
SIZES = range(5_000, 9_000)  # characters of such a file
SAMPLE = 80  # characters by which a file is recognised
LOOKS = (
    ("Glob", {"pattern": "**/*.py"}),
    ("Grep", {"pattern": "^class ", "output_mode": "content", "head_limit": 100}),
)
ANSWER = {
    "summary": "A task queue in Python.",
    "recommendations": [
        {"title": "Measure it", "reason": "Nobody knows what it costs.", "priority": "high"}
    ],
}


@dataclass(frozen=True, slots=True)
class Needed:
    """A file of the code base, from its root, and a piece of its text."""

    path: str
    sample: str


def candidates(root: Path) -> list[Needed]:
    """Files of a size that is read in one go, in an order that stays."""
    found = list[Needed]()
    for file in sorted(root.rglob("*.py")):
        text = file.read_text(errors="replace")
        if len(text) in SIZES:
            lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 50]
            if lines:
                found.append(
                    Needed(str(file.relative_to(root)), lines[len(lines) // 2][:SAMPLE])
                )
    return found


class Reader(Model):
    """The stand-in, with a code base that its prompts are about."""

    files: list[Needed]

    def _reply(self, seen: Seen, said: Conversation) -> Reply:
        found = list(MARK.finditer(said.prompt))
        if seen.kind != "turn" or not found:
            return super()._reply(seen, said)
        steps = self._steps(int(found[-1][1]), seen)
        return reply(Scenario("reader", (Rule("update", None, None, None, steps),)), said)

    def _steps(self, number: int, seen: Seen) -> tuple[Step, ...]:
        own = [self.files[(COMMON + number * OWN + n) % len(self.files)] for n in range(OWN)]
        needed = [*self.files[:COMMON], *own]
        before = _before(seen, number)
        missing = [file for file in needed if _told(file.sample) not in before]
        steps: list[Step] = []
        if len(missing) == len(needed):
            steps += [Use((look,)) for look in LOOKS]
        steps += [Use((("Read", {"file_path": f"{{cwd}}/{f.path}"}),)) for f in missing]
        text = f"What update {number} changes.\n" * 40
        steps.append(
            Use((("Write", {"file_path": f"{{cwd}}/changes/{number}.md", "content": text}),))
        )
        return (*steps, Say(f"Update {number} is made."))


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
