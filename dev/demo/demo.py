"""`make demo`: the main job on real input, watched by a person.

A project is built, described, compacted, changed and asked about; every job resumes the
session of the one before. Everything is real but, without a key, the model: a stand-in
with scripted answers. Each part is checked from the ledger and the files, and the demo's
exit code says whether all of them held.
"""

import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from config.settings import settings
from db.jobs import jobs
from db.jobs.jobs import Job
from db.projects import projects
from dev.demo.findings import Finding, check, ended_well, found, site_is_whole
from dev.demo.summary import summary
from dev.stack.noted import find
from dev.stack.up import EXPECTED, stack
from worker.cli import live_display, watch
from worker.client import Build, ChatPlan, Compaction, Update, enqueue

USER = "demo"
BUILD = "Build a small website for a trail guide: an overview and a packing list."
UPDATE = "Add a contact page and make the header dark green."
QUESTION = "What did we change last, and why?"
# Each page of the site links to each.
CHECK = (
    "bad=0; for page in *.html; do for other in *.html; do"
    ' grep -q "href=.$other" "$page" || { echo "$page has no link to $other"; bad=1; };'
    " done; done; exit $bad"
)
TURN_BUDGET = 0.50  # USD a turn, with a real model
# Two builds with two steps of metadata and a compaction each, a repair, and a question.
TURNS = 10


@dataclass
class Demo:
    """One run: its project, what was asked, and what was found to hold or not."""

    console: Console
    conn: psycopg.Connection
    project: str
    chains: list[UUID] = field(default_factory=list[UUID])
    findings: list[Finding] = field(default_factory=list[Finding])

    def ask(self, title: str, request: Build | Update | ChatPlan | Compaction) -> Job:
        """Ask for a job and watch its chain to the end."""
        said = f"\n“{request.prompt}”" if request.prompt else ""
        self.console.print(Panel(escape(f"{title}{said}"), style="bold cyan", expand=False))
        job = enqueue(self.conn, request)
        self.chains.append(job.chain_id)
        live_display.show(watch.follow(self.conn, job.id), self.console)
        self.findings += ended_well(title, jobs.chain(self.conn, job.chain_id))
        return jobs.get(self.conn, job.id) or job

    def compact(self) -> None:
        """Where Baton was running already, its policy may have skipped what the demo shows."""
        last = jobs.chain(self.conn, self.chains[-1])[-1]
        if last.kind == "compaction" and (last.result or {}).get("skipped"):
            self.ask("Compaction, on request", Compaction(project=self.project, user=USER))

    def run(self) -> None:
        """The five parts."""
        self.ask(
            "1 · 2 · 3  Build a project; metadata and compaction follow",
            Build(project=self.project, user=USER, prompt=BUILD, version="v1"),
        )
        self.compact()
        self.ask(
            "4  Change it: the compacted session is resumed; what the check finds is mended in it",
            Update(project=self.project, user=USER, prompt=UPDATE, version="v2", check=CHECK),
        )
        self.compact()
        answer = self.ask(
            "5  Ask about it",
            ChatPlan(project=self.project, user=USER, prompt=QUESTION),
        )
        text = str((answer.result or {}).get("text") or "")
        self.console.print(Panel(escape(text), title="the answer", expand=False))
        self.findings.append(check("the question is answered", bool(text.strip())))


def main(root: Path) -> int:
    """Run the demo in this checkout. Returns 1 if any part of it did not hold."""
    console = live_display.console()
    try:
        with _running(root, console) as urls:
            os.environ["DATABASE_URL"], os.environ["REDIS_URL"] = urls
            settings.cache_clear()
            with psycopg.connect(urls[0], autocommit=True) as conn:
                return _show(Demo(console, conn, _next_project(conn)))
    except EXPECTED as exc:
        console.print(escape(str(exc)), style="red")
        return 1
    except KeyboardInterrupt:
        return 130


def _show(demo: Demo) -> int:
    demo.run()
    site = settings().workspaces / demo.project
    scripted = not settings().anthropic_api_key.get_secret_value()
    demo.findings += site_is_whole(site) + found(demo.conn, demo.project, scripted=scripted)
    summary(demo.console, demo.conn, demo.project, site)
    broken = [finding for finding in demo.findings if not finding.holds]
    for finding in broken:
        demo.console.print(f"✗ {finding.what}", style="bold red", markup=False)
    if not broken:
        count = len(demo.findings)
        demo.console.print(f"All {count} checks hold.", style="bold green", markup=False)
    return 1 if broken else 0


@contextlib.contextmanager
def _running(root: Path, console: Console) -> Generator[tuple[str, str]]:
    """Baton's addresses: of the one that runs in this checkout, or of one for the demo."""
    if at := find(root):
        console.print("Baton runs in this checkout: the demo asks it.")
        yield at.database_url, at.redis_url
        return
    overrides = {"BATON_COMPACT": "always"}
    if (
        settings().anthropic_api_key.get_secret_value()
        and "budget_usd" not in settings().model_fields_set
    ):
        overrides["BATON_BUDGET_USD"] = str(TURN_BUDGET)
    with (
        console.status("Starting Postgres, Redis, Celery and the rest …"),
        contextlib.ExitStack() as held,
    ):
        running = held.enter_context(stack(root, overrides))
        stop = held.pop_all()
    with stop:
        console.print(f"The model: {running.model.told}", markup=False)
        if running.unboxed:
            console.print(running.unboxed, style="yellow", markup=False)
        if "BATON_BUDGET_USD" in overrides:
            console.print(
                f"This uses your key: {TURNS} turns, each capped at about"
                f" {TURN_BUDGET:.2f} USD ({TURNS * TURN_BUDGET:.2f} USD in all).",
                style="yellow",
            )
        yield running.database_url, running.redis_url


def _next_project(conn: psycopg.Connection) -> str:
    """A project of its own for each run, so that the demo can be run again."""
    row = conn.execute(
        "select count(*) from projects where project_id like 'trail-guide-%%' and user_id = %s",
        (USER,),
    ).fetchone()
    number = (row[0] if row else 0) + 1
    while projects.get(conn, f"trail-guide-{number}"):
        number += 1
    return f"trail-guide-{number}"
