"""What the agent is told. Templates lie in tasks/prompts; the user's words are never among them.

A fresh session that has a past is told of it in a digest, put before the user's prompt,
which itself stays word for word.

What users, agents and files have said stands behind a fence (quoted): each of its lines but the
first of a message begins with `| `, so no line of it can be taken for one of ours, for another
speaker's, or for the end of its block. How long each is, is said before it.
"""

import re
from pathlib import Path
from string import Template

from config.settings import settings
from db.sessions.chat import Past

TEMPLATES = Path(__file__).resolve().parents[2] / "tasks" / "prompts"
CUT = "\n[…]\n"  # where something was left out
SPEAKERS = {"user": "user", "assistant": "assistant"}
OTHER = "somebody"  # rows of a product's own may have other roles
SAID_EACH = 1_500  # characters of one chat message in a digest
REPORTED = 30_000  # characters of an error that is reported
# What begins a line, to whoever reads one; and tags of ours or of the CLI's, however they are spaced.
LINE_ENDS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
FENCE = "\n| "
NAMES = (
    *("projecthistory", "interruptedrequest", "projectnotes", "checkoutput", "reportederror"),
    *("chatplan", "systemreminder"),
)
# What stands before the name of a block of ours, back to the last word; however far apart its letters are:
# fences and cuts come between them. Each such run is tried from its beginning only, and once.
BEFORE_NAMES = re.compile(
    r"(?<![\W_])[\W_]++(?=" + "|".join(r"[\W_]*".join(name) for name in NAMES) + ")",
    re.IGNORECASE,
)


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
    each = (
        ("Summary of the work so far", past.summary or "", room // 3),
        ("Requests and answers, oldest first", past.said, room // 3),
        (f"Files {where}", "\n".join(files), room // 6),
        ("Documentation", documentation, room // 6),
    )
    parts = (_part(title, text, limit) for title, text, limit in each if text)
    return render("history", past="\n\n".join(filter(None, parts)))


def _part(title: str, told: str | list[tuple[str, str]], limit: int) -> str:
    """A part of the digest with its heading; empty where there is no room for it."""
    limit -= len(title) + 6  # with what joins them
    if limit <= 14:
        return ""
    if not isinstance(told, str):
        return f"## {title}\n{_chat(told, limit)}"
    length = f"({len(told)} characters)"
    return f"## {title}\n{length}{FENCE}{quoted(told, limit - len(length) - len(FENCE))}"


def replaced(prompt: str) -> str:
    """What a request is told of the one that was stopped for it."""
    return render("interrupted", prompt=behind_fence(prompt)) + "\n"


def behind_fence(text: str) -> str:
    """All of a text of others: how long it is, and then the text behind the fence."""
    return f"({len(text)} characters){FENCE}{quoted(text)}"


def quoted(text: str, limit: int | None = None) -> str:
    """Text of others behind the fence, `limit` characters with it at the most."""
    room = len(text) if limit is None else limit
    while True:
        fenced = FENCE.join(LINE_ENDS.split(_bounded(text, room)))
        told = BEFORE_NAMES.sub(lambda run: run[0].replace("<", "‹"), fenced)
        over = 0 if limit is None else len(told) - limit
        if over <= 0 or room <= 0:
            return told
        room -= over


def check_failed(command: str, ending: str, head: str, tail: str) -> str:
    """What an agent is told of a check that its work did not pass."""
    output = (f"{head}{CUT}{tail}" if tail else head).strip("\n")
    return render(
        "check_failed",
        command=quoted(command),
        ending=ending,
        output=behind_fence(output) if output else "(it printed nothing)",
    )


def reported(error: str, version: str | None) -> str:
    """What an agent is told of an error that came up elsewhere."""
    text = behind_fence(_bounded(error.strip(), REPORTED))
    return render("reported", error=text, version=f" (version {version})" if version else "")


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
        who = f"[{len(text)} characters] {SPEAKERS.get(role, OTHER)}: "
        line = who + quoted(text, min(SAID_EACH, room // 3))
        room -= len(line) + 1
        if room < 0 and lines:
            break
        lines.append(line)
    return "\n".join(reversed(lines))


def _bounded(text: str, limit: int) -> str:
    """A text says most at its beginning and at its end."""
    if len(text) <= limit:
        return text
    if limit <= len(CUT):
        return text[: max(limit, 0)]
    half = (limit - len(CUT)) // 2
    return f"{text[:half]}{CUT}{text[len(text) - half :]}"
