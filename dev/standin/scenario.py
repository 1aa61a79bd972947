"""Scenarios: what the stand-in model answers to which prompt, read from small YAML files.

A scenario is a list of rules, and the first that fits the last prompt answers:

    chores: [recommendations, DOCUMENTATION\\.md]   # prompts that are not a person's wish
    go_on: ^you were interrupted                   # prompts that mean the one before
    rules:
      - name: a page                  # optional, for messages and the log
        when: contact page            # regex on the last prompt, any case; left out: any prompt
        saw: index\\.html              # optional regex, somewhere in what came before
        offered: Write                # optional, a tool that the request must offer, or `answer`
        in_words: true                # optional: nothing goes through the tool for answers
        steps:
          - think: 1.5                # seconds, divided by the server's speed
          - say: Adding the page.
          - use: {tool: Write, input: {file_path: "{cwd}/a.html", content: {$file: demo/a.html}}}
          - answer: {summary: "…"}    # for the caller's schema, through its tool for that
          - say: Done, {prompt}.

`steps: prompt` takes the steps from the prompt's own lines (script.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from dev.standin.messages import JSON

HERE = Path(__file__).parent / "scenarios"


class BadScenario(ValueError):
    """A scenario file that cannot be used; the message names the file and the rule."""


@dataclass(frozen=True, slots=True)
class Think:
    """A pause before what follows; `real` ones are not shortened by the server's speed."""

    seconds: float
    real: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Use:
    """A tool call, or several at once."""

    calls: tuple[tuple[str, JSON], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Data for the caller's schema; None stands for made-up values."""

    data: Any = None


Step = Think | Say | Use | Answer


@dataclass(frozen=True, slots=True)
class Rule:
    """When to answer, and how; no steps: they are in the prompt."""

    name: str
    when: re.Pattern[str] | None
    saw: re.Pattern[str] | None
    offered: str | None
    steps: tuple[Step, ...] | None
    in_words: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """`summary_think` is how long a compaction takes, in seconds."""

    name: str
    rules: tuple[Rule, ...]
    chores: tuple[re.Pattern[str], ...] = ()
    go_on: re.Pattern[str] | None = None
    summary_think: float = 0.0


def load(source: str | Path) -> Scenario:
    """Read a scenario: by the name of one that comes with the stand-in, or by its path."""
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = HERE / f"{source}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in HERE.glob("*.yaml")))
        raise BadScenario(
            f"There is no scenario {source}: name one of {known}, or a .yaml file."
        )
    return parse(path.read_text(encoding="utf-8"), name=path.stem, beside=path.parent)


def parse(text: str, *, name: str, beside: Path = HERE) -> Scenario:
    """Read a scenario from its text; files it names lie `beside` it."""
    return _Source(name, beside).scenario(text)


@dataclass(frozen=True)
class _Source:
    """Where a scenario is read from, for the files it names and for its error messages."""

    name: str
    beside: Path
    at: str = ""

    def bad(self, problem: str) -> BadScenario:
        return BadScenario(f"Scenario {self.name}{self.at}: {problem}.")

    def scenario(self, text: str) -> Scenario:
        try:
            told: object = yaml.safe_load(text)
        except yaml.YAMLError as broken:
            raise self.bad("not YAML: " + " ".join(str(broken).split())) from broken
        top = self.mapping(told, "the file", {"rules", "chores", "go_on", "summary_think"})
        rules = top.get("rules")
        if not isinstance(rules, list) or not rules:
            raise self.bad("give it a list of rules")
        return Scenario(
            name=self.name,
            rules=tuple(self.rule(i, r) for i, r in enumerate(cast("list[object]", rules), 1)),
            chores=tuple(self.pattern(c) for c in self.listed(top.get("chores"), "chores")),
            go_on=self.pattern(top["go_on"]) if "go_on" in top else None,
            summary_think=self.seconds(top.get("summary_think", 0)),
        )

    def rule(self, number: int, told: object) -> Rule:
        here = _Source(self.name, self.beside, f", rule {number}")
        parts = here.mapping(
            told, "the rule", {"name", "when", "saw", "offered", "in_words", "steps"}
        )
        name = str(parts.get("name") or f"rule {number}")
        if "name" in parts:
            here = _Source(self.name, self.beside, f", rule {number} ({name})")
        if not parts.get("steps"):
            raise here.bad("a rule needs steps: a list of them, or the word prompt")
        steps = parts["steps"]
        return Rule(
            name=name,
            when=here.pattern(parts["when"]) if "when" in parts else None,
            saw=here.pattern(parts["saw"]) if "saw" in parts else None,
            offered=str(parts["offered"]) if "offered" in parts else None,
            steps=None
            if steps == "prompt"
            else tuple(here.step(s) for s in here.listed(steps, "steps")),
            in_words=bool(parts.get("in_words")),
        )

    def step(self, told: object) -> Step:
        parts = self.mapping(told, "a step", {"say", "use", "think", "answer"})
        if len(parts) != 1:
            raise self.bad("each step is one of say, use, think, answer")
        (kind, value), *_ = parts.items()
        match kind:
            case "say":
                return Say(str(self.filled(value)))
            case "think":
                return Think(self.seconds(value))
            case "answer":
                return Answer(self.filled(value))
            case _:
                uses: list[object] = (
                    cast("list[object]", value) if isinstance(value, list) else [value]
                )
                return Use(tuple(self.call(u) for u in uses))

    def call(self, told: object) -> tuple[str, JSON]:
        parts = self.mapping(told, "use", {"tool", "input"})
        if not isinstance(parts.get("tool"), str) or not isinstance(parts.get("input"), dict):
            raise self.bad("use needs a tool (its name) and an input (a mapping)")
        return parts["tool"], cast(JSON, self.filled(parts["input"]))

    def filled(self, value: Any) -> Any:
        """The value with every {$file: path} replaced by what is in the file."""
        if isinstance(value, list):
            return [self.filled(v) for v in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        parts = cast(JSON, value)
        if set(parts) == {"$file"}:
            return self.file(str(parts["$file"]))
        return {k: self.filled(v) for k, v in parts.items()}

    def file(self, path: str) -> str:
        try:
            return (self.beside / path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as missing:
            raise self.bad(f"the file {path} beside it cannot be read") from missing

    def mapping(self, told: object, what: str, known: set[str]) -> dict[str, Any]:
        if not isinstance(told, Mapping):
            raise self.bad(f"{what} must be a mapping with {', '.join(sorted(known))}")
        parts = cast("Mapping[str, Any]", told)
        if strange := sorted(str(k) for k in parts if k not in known):
            raise self.bad(f"{what} has no {strange[0]}: it knows {', '.join(sorted(known))}")
        return dict(parts)

    def listed(self, told: object, what: str) -> list[object]:
        if told is None:
            return []
        if not isinstance(told, list):
            raise self.bad(f"{what} must be a list")
        return cast("list[object]", told)

    def pattern(self, told: object) -> re.Pattern[str]:
        try:
            return re.compile(str(told), re.IGNORECASE | re.MULTILINE)
        except re.error as broken:
            raise self.bad(f"{told!r} is not a regular expression: {broken}") from broken

    def seconds(self, told: object) -> float:
        if isinstance(told, bool) or not isinstance(told, int | float) or told < 0:
            raise self.bad(f"think takes seconds, not {told!r}")
        return float(told)
