"""The docs are held to the code: what they name exists, and what exists is named where it is listed.

And they can be read: no paragraph over 120 words, no cell of a table over 25.
"""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import Connection

from config.settings import Settings, name
from db.core.codes import CODES
from dev.cli import OWN
from dev.standin.faults import KINDS as FAULTS
from worker.cli.command_table import COMMANDS
from worker.failures import errors, refused
from worker.failures.verdicts import AGENT, BLAMED, ELSEWHERE, STOPS, TRIES
from worker.process import crash_points
from worker.reports import waits

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = [
    path
    for layer in ("worker", "db", "tasks", "egress")
    for path in (ROOT / layer).rglob("*.py")
]
SQL = [*(ROOT / "db" / "functions").glob("*.sql"), *(ROOT / "db").rglob("*.py")]
LONGEST_PARAGRAPH, LONGEST_CELL = 120, 25  # words

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
CELL_END = re.compile(r"(?<!\\)\|")
RULE = re.compile(r"[|\s:-]+")
ITEM = re.compile(r"([-*]|\d+\.) ")
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"`((?:config|db|worker|tasks|egress|dev|tests|docs)/[\w./-]+\.\w+)`")
EXAMPLES = {"BATON_SLOT"}  # a name that is no setting, and said to be none

# Names with a dot in quotes that are an event's type unless a log line or a crash point has them.
DOTTED = re.compile(
    r"""["']((?:job|session|sessions|turn|workspace|branch|project|credential|chat|egress|check)\.[a-z_]+)["']"""
)
NO_EVENT = re.compile(r"(?:log\.\w+|points\.reach|reach)\(\s*$")
PROGRESS = {"turn.began", "turn.ended"}  # what a job's agent does from moment to moment


def page(path: str) -> str:
    return (ROOT / "docs" / path).read_text()


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parts(text: str) -> Iterator[tuple[str, str]]:
    """Each paragraph, item of a list and cell of a table, with its kind."""
    lines: list[str] = []
    for line in [*FENCE.sub("", text).splitlines(), ""]:
        found = line.strip()
        row = found.startswith("|")
        if row or not found or found.startswith("#") or ITEM.match(found):
            yield "paragraph", " ".join(lines)
            lines = []
        if row and not RULE.fullmatch(found):
            yield from (("cell", cell.strip()) for cell in CELL_END.split(found)[1:-1])
        elif found and not row and not found.startswith("#"):
            lines.append(found)


def told(text: str, heading: str, column: int = 0) -> set[str]:
    """The words in backticks of a column, in the tables below a heading of the second level."""
    below = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in below.splitlines() if line.startswith("|")]
    cells = [CELL_END.split(row)[1:-1][column] for row in rows]
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def anchors(text: str) -> set[str]:
    """Where a link may lead within a page: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_page_can_be_read(path: Path):
    most = {"paragraph": LONGEST_PARAGRAPH, "cell": LONGEST_CELL}
    long = [
        part[:60] for kind, part in parts(path.read_text()) if len(part.split()) > most[kind]
    ]
    assert long == []


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_link_leads_somewhere(path: Path):
    lost: list[str] = []
    for link in LINK.findall(FENCE.sub("", path.read_text())):
        file, _, anchor = link.partition("#")
        if "://" in link:
            continue
        to = (path.parent / file).resolve() if file else path
        if not to.exists() or (anchor and anchor not in anchors(to.read_text())):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_file_that_is_named_exists(path: Path):
    files = set(NAMED_FILE.findall(path.read_text()))
    assert {
        file for file in files if not (ROOT / file).exists() and "NNNN" not in file
    } == set()


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_setting_that_is_named_exists(path: Path):
    known = {name(field) for field in Settings.model_fields} | EXAMPLES
    used = set(re.findall(r"\bBATON_[A-Z_]*[A-Z]\b", path.read_text()))
    assert used - known - {"BATON_FLOWER_URL"} == set()


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_target_of_make_that_is_named_exists(path: Path):
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = path.read_text()
    commands = "\n".join(
        [*FENCE.findall(text), *re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)]
    )
    used = re.findall(r"^make ([a-z][^#\n]*?)(?: {2,}|$)", commands, re.MULTILINE)
    used += re.findall(r"`make ([^`]+)`", text)
    targets = {word for line in used for word in line.split('"')[0].split()}
    assert {word for word in targets if re.fullmatch(r"[a-z-]+", word)} - made == set()


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_command_that_is_named_exists(path: Path):
    used = re.findall(r"(?:`|^|\$ )baton ([a-z][a-z-]+)", path.read_text(), re.MULTILINE)
    assert set(used) - {*COMMANDS, *OWN} == set()


def test_a_test_that_is_named_exists():
    told = {
        name
        for path in (ROOT / "docs").rglob("*.md")
        for name in re.findall(r"`(test_\w+)`", path.read_text())
    }
    there = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert told - there == set()


def test_every_command_is_in_the_reference():
    rows = re.findall(r"^\| `baton ([a-z-]+)", page("operations.md"), re.MULTILINE)
    assert set(rows) == {*COMMANDS, *OWN}


def test_every_event_is_in_the_reference_and_no_other():
    written = {"job.quarantined", "job.failed"}  # statements make them of the state
    for path in {*CODE, *SQL} - {Path(crash_points.__file__)}:
        text = path.read_text()
        found = [
            one for one in DOTTED.finditer(text) if not NO_EVENT.search(text[: one.start()])
        ]
        written |= {one[1] for one in found}
    assert told(page("events.md"), "Types") == written - PROGRESS


def test_every_error_class_is_in_the_reference_and_no_other():
    judged = {
        *re.findall(r'Judgement\(Verdict\.\w+, "(\w+)"', Path(errors.__file__).read_text()),
        *(word for _, word in errors.OWN.values()),
    } - {"damaged"}  # a candidate of the ladder, which is passed over
    of_rows = {"worker_died", "project_gone", "branch_gone"}  # which statements write
    known = {*AGENT, *TRIES, *BLAMED, *ELSEWHERE, *STOPS} | judged | of_rows
    headings = re.findall(r"^## (.*)$", page("errors.md"), re.MULTILINE)[1:]
    in_docs = set[str]().union(*(told(page("errors.md"), one, column=1) for one in headings))
    assert in_docs - {"unknown"} == known


def test_every_refusal_is_in_the_reference_and_no_other():
    rows = re.findall(
        r"^\| `(BA\d\d\d)` \| `(\w+)` \| `(\w+)` \|", page("jobs.md"), re.MULTILINE
    )
    assert {state: code for state, code, _ in rows} == CODES
    assert {code: kind for _, code, kind in rows} == {
        code: refused.KINDS[code].__name__ for code in CODES.values()
    }


def test_every_reason_to_wait_is_in_the_reference_and_no_other():
    source = Path(waits.__file__).read_text()
    known = set(re.findall(r'Waits\(\s*"(\w+)"', source))
    known |= set(re.findall(r'Waits\("(\w+)" if own else "(\w+)"', source)[0])
    assert told(page("jobs.md"), "Why a job waits") == known


def test_every_table_and_view_is_in_the_reference_and_no_other(conn: Connection):
    there = conn.execute(
        """
        select relname from pg_class c
         where relnamespace = current_schema()::regnamespace
           and relkind in ('r', 'p', 'v') and not relispartition
        """
    ).fetchall()
    rows = set(re.findall(r"^\| `(\w+)` \|", page("tables.md"), re.MULTILINE))
    assert rows == {table for (table,) in there}


def test_every_fault_of_the_stand_in_is_in_its_page():
    assert [kind for kind in FAULTS if f"`{kind}`" not in page("standin.md")] == []


@pytest.mark.parametrize("script", sorted((ROOT / "docs" / "pictures").glob("*.py")), ids=named)
def test_a_picture_is_what_its_script_draws(script: Path):
    assert script.with_suffix(".svg").read_text() == runpy.run_path(str(script))["picture"]()


def test_the_hooks_of_a_commit_are_what_make_check_runs():
    made = re.split(r"^check: .*$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1]
    checks = re.findall(r"^\t@(.+)$", made.partition("\n\n")[0], re.MULTILINE)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"entry: \.venv/bin/(.+)", hooks) == checks
