"""The checker of a soak: what producers were told, beside what was seen outside the product.

    asked     what a producer got an acknowledgement for, in its order, with what became of it
    heard     what the model was told, request by request
    files     what lies in the workspaces
    steps     what the ledger says it committed, in order, and its transitions

A project's last request of all, asked once everything is healed, shows the model the whole
conversation: it must be the committed prompts in order, none lost, none doubled.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from dev.standin.model import Seen

CHORES = {
    "recommendations": re.compile("recommendations"),
    "documentation": re.compile("DOCUMENT"),
}
GO_ON = re.compile(
    r"\s*(you were interrupted|go on where|continue (where|from))", re.IGNORECASE
)
BEGUN_ANEW = (
    "fallback",
    "reset",
)  # sources of transitions to a session that is told of the past
OWN_FILES = {"DOCUMENTATION.md"}  # what the chain itself writes


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was acknowledged. `state`: what it came to (empty: it is not there);
    `writes`: the file that it asked for, and what is to be in it."""

    project: str
    job: str
    prompt: str
    state: str
    writes: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """A request that the model got: when (s), in which session, and the prompts it showed."""

    at: float
    project: str
    session: str
    prompts: tuple[str, ...]
    history: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A committed turn: its job, step, session, and how its transition is recorded."""

    job: str
    step: str
    session: str
    old: str | None
    source: str


@dataclass
class History:
    """All that is known of a run."""

    asked: list[Asked] = field(default_factory=list[Asked])
    heard: list[Heard] = field(default_factory=list[Heard])
    files: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    steps: dict[str, list[Step]] = field(default_factory=dict[str, list[Step]])
    heads: dict[str, str | None] = field(default_factory=dict[str, str | None])


ENDS = {"done", "failed", "cancelled", "quarantined"}


def broken(history: History) -> list[str]:
    """A sentence for each thing that cannot be."""
    found = [
        f"{one.project}: request {one.job} was acknowledged, and is {one.state or 'not there'}"
        for one in history.asked
        if one.state not in ENDS
    ]
    found += interleaved(history.heard)
    for project in sorted(history.steps):
        found += [f"{project}: {text}" for text in _broken_project(history, project)]
    return found


def interleaved(heard: Iterable[Heard]) -> list[str]:
    """Two sessions of a project that spoke to the model in turns: two agents were alive."""
    found, newest, over = list[str](), dict[str, str](), set[tuple[str, str]]()
    for one in sorted(heard, key=lambda one: one.at):
        before = newest.get(one.project)
        if before != one.session:
            if before is not None:
                over.add((one.project, before))
            if (one.project, one.session) in over:
                found.append(f"{one.project}: session {one.session} spoke after {before} began")
            newest[one.project] = one.session
    return found


def _broken_project(history: History, project: str) -> list[str]:
    asked = [one for one in history.asked if one.project == project]
    heard = [one for one in history.heard if one.project == project]
    steps = history.steps[project]
    return [
        *_broken_path(steps, history.heads.get(project)),
        *_unheard(steps, asked, heard),
        *_broken_talk(steps, asked, heard),
        *_broken_files(asked, history.files.get(project, {})),
    ]


def _broken_path(steps: list[Step], head: str | None) -> list[str]:
    found = [
        f"{after.step} of {after.job} left {after.old}, and the head was {before.session}"
        for before, after in pairwise(steps)
        if after.old != before.session
    ]
    last = steps[-1].session if steps else None
    return found if head == last else [*found, f"the head is {head}, the last step's {last}"]


def _unheard(steps: list[Step], asked: list[Asked], heard: list[Heard]) -> list[str]:
    """Committed turns whose session never spoke to the model, or not of their prompt."""
    prompts = dict[str, set[str]]()
    for one in heard:
        prompts.setdefault(one.session, set()).update(one.prompts)
    wanted = {one.job: one.prompt for one in asked}
    found = list[str]()
    for step in steps:
        if step.session not in prompts:
            found.append(f"{step.step} of {step.job} is committed, and was never asked")
        elif step.job in wanted and wanted[step.job] not in prompts[step.session]:
            found.append(f"{step.step} of {step.job} is committed without its prompt")
    return found


def _broken_talk(steps: list[Step], asked: list[Asked], heard: list[Heard]) -> list[str]:
    """What each committed turn showed the model, beside what had been committed before it."""
    prompts = {one.job: one.prompt for one in asked}
    found, told = list[str](), list[str]()
    done = [one.prompt for one in asked if one.state == "done"]
    committed = [prompts[one.job] for one in steps if one.job in prompts and _speaks(one)]
    if committed != done:
        found.append(f"done are {done}, and committed {committed}")
    for step in steps:
        anew = step.source in BEGUN_ANEW
        if not _speaks(step):
            continue
        told = [*([] if anew else told), prompts.get(step.job, step.step)]
        shown = [one for one in heard if one.session == step.session]
        if anew and told and not any(one.history for one in shown):
            found.append(f"{step.step} of {step.job} began anew and was told nothing of before")
        if shown and (seen := _labels(shown[-1].prompts)) != told:
            found.append(f"{step.step} of {step.job} was shown {seen}, and not {told}")
    return found


def _speaks(step: Step) -> bool:
    """A compaction adds no prompt to the conversation."""
    return not step.step.startswith("compact")


def _labels(prompts: Iterable[str]) -> list[str]:
    """Prompts, those of chores by their step's name, without those that only say: go on."""
    said = [prompt for prompt in prompts if not GO_ON.match(prompt)]
    return [
        next((name for name, what in CHORES.items() if what.search(prompt)), prompt)
        for prompt in said
    ]


def _broken_files(asked: list[Asked], there: dict[str, str]) -> list[str]:
    wanted = {
        one.writes[0]: one.writes[1] for one in asked if one.state == "done" and one.writes
    }
    found = [
        f"{name} holds {there.get(name)!r}, and not {text!r}"
        for name, text in wanted.items()
        if there.get(name) != text
    ]
    if strange := set(there) - set(wanted) - OWN_FILES:
        found.append(f"{sorted(strange)} is of no request that is done")
    return found


def heard_by(model: Iterable[Seen]) -> list[Heard]:
    """What the stand-in has seen, its callers' own small questions left out."""
    return [
        Heard(one.at, Path(one.cwd).name, one.session, one.prompts, one.history)
        for one in model
        if one.kind != "side"
    ]
