"""What the project says of itself, CLAUDE.md: told in the prompt, as data, and only where the
conversation does not have it yet.

In the system prompt it stood before everything: a turn that edited it gave up the whole prompt
cache. Told once, it is part of the conversation. It is told again when it reads otherwise, and
after a compaction, of which it was no certain part.
"""

from pathlib import Path

from db.transcripts.form import Entry
from worker.session import prompts
from worker.session.conversation import spoken
from worker.workspace import reading

FILE = "CLAUDE.md"
LIMIT = 20_000  # characters of it that the agent is told


def before(prompt: str, cwd: Path, entries: list[Entry]) -> str:
    """The prompt, after the notes if the conversation in `entries` does not have them."""
    text = reading.text(cwd / FILE, LIMIT)
    if not text.strip():
        return prompt
    told = prompts.render("notes", notes=prompts.behind_fence(text))
    return prompt if _has(entries, told) else f"{told}\n{prompt}"


def _has(entries: list[Entry], told: str) -> bool:
    """Whether it was said since the conversation began, or was compacted last."""
    for entry in reversed(entries):
        if entry.get("isCompactSummary"):
            return False
        if entry.get("type") == "user" and told in spoken(entry):
            return True
    return False
