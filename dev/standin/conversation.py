"""What a request says: what is asked now, what was asked before, what was done for it.

The Claude Code CLI wraps a user's words in much of its own: reminders, a note of the
working directory, traces of local commands, a nudge to use a tool and, after a
compaction, a summary in place of the history. `read` takes that apart:

    messages ──► blocks ──► exchanges: a prompt and the calls made for it, then the next

A reply depends on the exchanges alone, so a repeated, forked or parallel request gets the
answer that its own messages ask for. The forms recognised here are those of CLI 2.1.332.
"""

import json
import re
from dataclasses import dataclass, replace

from dev.standin.messages import JSON, Block, message_blocks, texts, tools

COMPACTION_REQUEST = "Your task is to create a detailed summary of the conversation"
CONTINUED = "This session is being continued from a previous conversation"

# Text blocks of a user message that no user wrote.
NOT_A_PROMPT = re.compile(
    r"\s*(<local-command-|<command-name>|<command-message>|\[structured-output-enforce\]"
    r"|\[Request interrupted|\[Tool call interrupted|Caveat: The messages below"
    r"|Tool loaded\.\s*$)"
)
REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
# What a worker puts before a user's words; all but instructions and notes is knowledge of the past.
PREFACE = re.compile(
    r"\s*<(project-history|project-notes|interrupted-request|chat-plan)>(.*?)</\1>\s*",
    re.DOTALL,
)
NO_PAST = {"chat-plan", "project-notes"}
WORKING_DIRECTORY = re.compile(
    r"[Ww]orking directory: +(/[^\n]*?)(?: \(was .*)?$", re.MULTILINE
)

# A prompt and the work done for it, as summary.py writes them.
SUMMARY_LINE = re.compile(r'^\s*- ("(?:[^"\\]|\\.)*")(?: → (.*))?$', re.MULTILINE)
SUMMARY_FILES = re.compile(r"(wrote|edited) ([^;]+)")
SUMMARY_STEPS = re.compile(r"^\s*Steps done: (\d+)$", re.MULTILINE)
SUMMARY_HISTORY = re.compile(r"<before>(.*?)</before>", re.DOTALL)

STEP_ID = re.compile(r"toolu_standin_(\d+)_")  # reply.py writes a call's step into its id


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; `result` is None while it has none."""

    id: str
    tool: str
    input: JSON
    result: str | None = None
    failed: bool = False

    @property
    def step(self) -> int | None:
        """The step of a rule that this call belongs to, if the stand-in made it."""
        found = STEP_ID.match(self.id)
        return int(found[1]) if found else None

    @property
    def path(self) -> str:
        return str(self.input.get("file_path", ""))


@dataclass(frozen=True, slots=True)
class Exchange:
    """One prompt and what was done for it.

    `files` are what an earlier part of the work wrote or edited, of which only a summary
    still tells, with the words for it; `steps` is how many steps of a rule that was.
    """

    prompt: str
    calls: tuple[Call, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request without what the CLI added.

    `history` is what a prompt or a summary tells of the time before this session;
    `earlier` all text before the last prompt, for rules that look for something in it.
    """

    exchanges: tuple[Exchange, ...]
    cwd: str
    history: str
    earlier: str
    compaction: bool
    tools: tuple[JSON, ...]

    @property
    def prompt(self) -> str:
        return self.exchanges[-1].prompt if self.exchanges else ""

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(e.prompt for e in self.exchanges)

    def tool(self, name: str) -> JSON | None:
        return next((t for t in self.tools if t.get("name") == name), None)


def read(request: JSON) -> Conversation:
    """Take a request apart. Blocks of unknown kinds are passed over."""
    blocks = list(message_blocks(request))
    said = [b for b in blocks if COMPACTION_REQUEST not in b.text]
    reader = _Reader()
    for block in said:
        reader.take(block)
    return Conversation(
        exchanges=tuple(reader.exchanges),
        cwd=_cwd(texts(request.get("system")), blocks),
        history="\n\n".join(reader.history),
        earlier="\n".join(reader.earlier),
        compaction=len(said) < len(blocks),
        tools=tools(request),
    )


class _Reader:
    """Collects exchanges from blocks, in order."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.history: list[str] = []
        self.earlier: list[str] = []
        self._since: list[str] = []  # texts from the last prompt on

    def take(self, block: Block) -> None:
        if block.role == "user" and CONTINUED in block.text[:200]:
            self._summary(block.text)
        elif block.role == "user" and (prompt := _prompt(block.text)):
            self._asked(prompt)
        elif block.kind == "tool_use":
            self._called(block.body)
        elif block.kind == "tool_result":
            self._answered(block.body)
        self._since.append(block.text)

    def _summary(self, text: str) -> None:
        self.exchanges = summarised(text)
        self.history = [h.strip() for h in SUMMARY_HISTORY.findall(text)]

    def _asked(self, prompt: str) -> None:
        while preface := PREFACE.match(prompt):
            if preface[1] not in NO_PAST:
                self.history.append(preface[2].strip())
            prompt = prompt[preface.end() :]
        self.exchanges.append(Exchange(prompt))
        self.earlier += self._since
        self._since = []

    def _called(self, body: JSON) -> None:
        call = Call(str(body.get("id")), str(body.get("name")), body.get("input") or {})
        last = self.exchanges.pop() if self.exchanges else Exchange("")
        self.exchanges.append(replace(last, calls=(*last.calls, call)))

    def _answered(self, body: JSON) -> None:
        if not self.exchanges:
            return
        last, answer = self.exchanges[-1], texts(body.get("content"))
        failed = bool(body.get("is_error"))
        self.exchanges[-1] = replace(
            last,
            calls=tuple(
                replace(c, result=answer, failed=failed)
                if c.id == body.get("tool_use_id")
                else c
                for c in last.calls
            ),
        )


def summarised(text: str) -> list[Exchange]:
    """The exchanges that a summary of ours tells of."""
    exchanges = [
        Exchange(json.loads(prompt), files=_files(work))
        for prompt, work in SUMMARY_LINE.findall(text)
    ]
    if exchanges and (steps := SUMMARY_STEPS.search(text)):
        exchanges[-1] = replace(exchanges[-1], steps=int(steps[1]))
    return exchanges


def _files(work: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (done, name)
        for done, names in SUMMARY_FILES.findall(work)
        for name in names.split(", ")
    )


def _prompt(text: str) -> str:
    return "" if NOT_A_PROMPT.match(text) else REMINDER.sub("", text).strip()


def _cwd(system: str, blocks: list[Block]) -> str:
    """The working directory that the CLI last told of, or the root where it told of none."""
    told = [b.text for b in blocks if b.role == "system" or "<system-reminder>" in b.text]
    found = WORKING_DIRECTORY.findall("\n".join([system, *told]))
    return found[-1] if found else "/"
