"""What the agent is told. Templates lie in tasks/prompts; the user's words are never among them.

A fresh session that has a past is told of it in a digest, put before the user's prompt,
which itself stays word for word.
"""

import re
from pathlib import Path
from string import Template

from config.settings import settings
from db.sessions.chat import Past

TEMPLATES = Path(__file__).resolve().parents[2] / "tasks" / "prompts"
CUT = "\n[…]\n"  # where something was left out
SAID_EACH = 1_500  # characters of one chat message in a digest
BLOCKS = re.compile(r"<(?=/?\s*(project-history|interrupted-request))", re.IGNORECASE)


def render(name: str, **values: str) -> str:
    """The template of that name with its values."""
    return Template((TEMPLATES / f"{name}.md").read_text()).substitute(values)


def digest(past: Past, files: list[str], documentation: str, *, elsewhere: bool = False) -> str:
    """What is known of the past, BATON_DIGEST_CHARS at the most; empty when that is nothing.

    `elsewhere`: the files are not on this host.
    """
    if not (past.summary or past.said or past.versions or files):
        return ""
    room = settings().digest_chars - len(render("history", past=""))
    where = "as of the last turn, not on this host" if elsewhere else "in the workspace"
    parts = [
        ("Summary of the work so far", _tame(past.summary or ""), room // 3),
        ("Requests and answers, oldest first", _chat(past.said, room // 3), room // 3),
        (f"Files {where}", _tame("\n".join(files)), room // 6),
        ("Documentation", _tame(documentation), room // 6),
    ]
    body = "\n\n".join(
        f"## {title}\n{_bounded(text, limit - len(title) - 6)}"  # with what joins them
        for title, text, limit in parts
        if text and limit > len(title) + 20
    )
    return render("history", past=body)


def replaced(prompt: str) -> str:
    """What a request is told of the one that was stopped for it."""
    return render("interrupted", prompt=_tame(prompt)) + "\n"


def go_on(prompt: str) -> str:
    """What an agent is told that goes on where one was stopped, and the prompt word for word."""
    return f"{render('go_on')}{prompt}"


def with_digest(digest_text: str, prompt: str) -> str:
    """The digest, and then the prompt word for word."""
    return f"{digest_text}\n{prompt}" if digest_text else prompt


def _chat(said: list[tuple[str, str]], room: int) -> str:
    """As many of the newest messages as there is room for, oldest first."""
    lines: list[str] = []
    for role, text in reversed(said):
        line = f"{role}: {_bounded(_tame(text), min(SAID_EACH, room // 3))}"
        room -= len(line) + 1
        if room < 0 and lines:
            break
        lines.append(line)
    return "\n".join(reversed(lines))


def _tame(text: str) -> str:
    """Text of others may not close the block that it stands in, nor open one."""
    return BLOCKS.sub("‹", text)


def _bounded(text: str, limit: int) -> str:
    """A text says most at its beginning and at its end."""
    if len(text) <= limit:
        return text
    half = max(limit - len(CUT), 2) // 2
    return f"{text[:half]}{CUT}{text[-half:]}"
