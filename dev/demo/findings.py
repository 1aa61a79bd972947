"""What the demo checks: from the ledger and the files, not from what was printed."""

from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from psycopg import Connection
from psycopg.rows import dict_row

from db.jobs.jobs import Job


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that ought to hold, and whether it does."""

    what: str
    holds: bool


def check(what: str, holds: bool) -> Finding:
    """A finding, in the order of reading."""
    return Finding(what, holds)


def ended_well(title: str, chain: list[Job]) -> list[Finding]:
    """Each job of the chain is done."""
    return [
        check(f"{title}: {job.kind} is done ({job.state}: {job.error})", job.state == "done")
        for job in chain
    ]


class _Links(HTMLParser):
    """The local files that a page needs."""

    def __init__(self) -> None:
        super().__init__()
        self.local: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag  # any element may need a file
        for name, value in attrs:
            if name in ("href", "src") and value and not urlsplit(value).scheme:
                self.local.append(urlsplit(value).path)


def site_is_whole(site: Path) -> list[Finding]:
    """The site opens in a browser: its pages are there, and so is what they link to."""
    pages = sorted(site.glob("**/*.html"))
    missing: list[str] = []
    for page in pages:
        links = _Links()
        links.feed(page.read_text())
        missing += [link for link in links.local if link and not (page.parent / link).exists()]
    return [
        check("there is an index.html", (site / "index.html").is_file()),
        check("the update added a page", len(pages) >= 3),
        check(f"every local link leads somewhere ({', '.join(missing)})", not missing),
        check("the documentation is written", (site / "DOCUMENTATION.md").is_file()),
    ]


def found(conn: Connection, project: str, *, scripted: bool) -> list[Finding]:
    """The chain in the ledger is the one that was promised. `scripted`: by the stand-in, whose update
    forgets a link; a real model may not."""
    moves = transitions(conn, project)
    sources = [move["source"] for move in moves]
    after_first = moves[1:]
    sync = conn.execute(
        "select sync_status from session_sync where project_id = %s", (project,)
    ).fetchone()
    rows = conn.execute(
        "select outcome from checks where project_id = %s order by id", (project,)
    )
    checked = [outcome for (outcome,) in rows]
    return [
        check(f"no turn fell back ({sources})", "fallback" not in sources),
        check(
            "every turn after the first resumed the head",
            bool(after_first)
            and all(
                move["parent_session_id"] == move["old_session_id"] for move in after_first
            ),
        ),
        check("two compactions moved the head", sources.count("compact") == 2),
        check(f"the update passes its check ({checked})", checked[-1:] == ["passed"]),
        check(f"its check failed at first ({checked})", "failed" in checked or not scripted),
        check(
            "what the check found was mended in the session that made it",
            "failed" not in checked or ("recovery", "update") in _parents(moves),
        ),
        check("ids and tables are in step", sync is not None and sync[0] == "SYNCED"),
    ]


def _parents(moves: list[dict[str, Any]]) -> set[tuple[str, str | None]]:
    """The source of each move, with that of the move whose session it goes on from."""
    made = {move["new_session_id"]: move["source"] for move in moves}
    return {(move["source"], made.get(move["parent_session_id"])) for move in moves}


def transitions(conn: Connection, project: str) -> list[dict[str, Any]]:
    """The project's moves, oldest first, each with its session's figures."""
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(
            """
            select t.source, t.reason, t.old_session_id, t.new_session_id, t.parent_session_id,
                   t.version_id, m.step, m.input_tokens, m.cache_creation_tokens,
                   m.cache_read_tokens, m.output_tokens, m.context_tokens,
                   m.cost_usd::float8 as cost_usd, m.duration_ms, m.resumed,
                   p.context_tokens as parent_tokens
              from session_chain t
              join project_ai_session_metrics m on m.session_id = t.new_session_id
              left join project_ai_session_metrics p on p.session_id = t.parent_session_id
             where t.project_id = %s order by t.id
            """,
            (project,),
        ).fetchall()
