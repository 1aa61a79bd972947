"""Ids as people give them: whole, or the first digits, and what of them is meant.

1a2b3c4d-…      whole: taken as it is
1a2b3c          the one job (or session) whose id begins so; if there are several, that is
                wrong usage (exit 2), if there is none, a failure (exit 1)
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from worker.cli.complaints import WrongUsage
from worker.cli.console import screen
from worker.cli.pages.layout import Name
from worker.failures.failed import Failed
from worker.text.units import instant

if TYPE_CHECKING:
    from psycopg import Connection

    from db.jobs.jobs import Job
    from db.jobs.listing import Place

LEAST = 6  # digits
WHOLE = 36  # characters of an id
FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # a version's is its build's
DIGITS = re.compile(r"[0-9a-f]{1,32}")
NAMED = 3  # of several that may be meant
BRANCH = "branch-"  # and the id of its first job, is a branch's name
MAIN = "main"  # as db.jobs.lanes, which takes longer to import


def parse_id(given: str) -> str:
    """An id, or its first digits, in the form that ids have: lower case, with its dashes."""
    try:
        return str(UUID(given))
    except ValueError:
        pass
    digits = given.strip().lower().replace("-", "")
    if not DIGITS.fullmatch(digits):
        raise typer.BadParameter(f"{given} is not a UUID, nor the beginning of one")
    if len(digits) < LEAST:
        raise typer.BadParameter(f"{given} is too short: give at least {LEAST} digits")
    return dashed(digits)


def dashed(digits: str) -> str:
    """Hexadecimal digits with the dashes that an id has among them."""
    parts = digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]
    return "-".join(part for part in parts if part)


Id = Annotated[str, typer.Argument(metavar="ID", parser=parse_id)]


def session_option(told: str, *names: str) -> Any:
    """An option that names a session."""
    return typer.Option(*names, metavar="SESSION", parser=parse_id, help=told)


def job_named(conn: "Connection", given: str) -> UUID:
    """The job that is meant. Raises Failed or WrongUsage."""
    from db.core import names

    if len(given) == WHOLE:
        return UUID(given)
    return UUID(_only(given, [str(one) for one in names.jobs(conn, given)], "job", "jobs"))


def place_named(conn: "Connection", given: str) -> "Place":
    """Where the job that is meant stands in the list; raises Failed if there is none."""
    from db.jobs import listing

    if found := listing.place(conn, job_named(conn, given)):
        return found
    raise Failed(f"There is no job {given}: leave --after out to begin at the first one.")


def known_job(conn: "Connection", given: str) -> "Job":
    """The job that is meant, as it is now; raises Failed if there is none."""
    from db.jobs import jobs

    if found := jobs.get(conn, job_named(conn, given)):
        return found
    raise Failed(_refused(conn, given) or f"There is no job {given}: `baton jobs` lists them.")


def job_of_task(conn: "Connection", given: str) -> "Job":
    """As `known_job`; `given` may also be the id of a task, in any form. Where its message was refused,
    Failed says why."""
    from db.jobs import jobs

    try:
        return known_job(conn, parse_id(given))
    except (Failed, WrongUsage, typer.BadParameter):
        if why := _refused(conn, given):
            raise Failed(why) from None
        if (made := jobs.id_of_task(given)) and (found := jobs.get(conn, made)):
            return found
        check_form(given)
        raise


def check_form(given: str) -> None:
    """Raises WrongUsage if it is no id, nor the beginning of one."""
    try:
        parse_id(given)
    except typer.BadParameter as exc:
        raise WrongUsage(f"{exc.message}: see `baton jobs --help`.") from None


def _refused(conn: "Connection", task_id: str) -> str | None:
    from db.jobs import messages

    if found := messages.refused(conn, task_id):
        return (
            f"There is no job {task_id}: the message of {found.task} was refused at"
            f" {instant(found.at)}. {found.error}"
        )
    return None


def session_named(conn: "Connection", given: str, project_id: str | None = None) -> str:
    """The session that is meant, of that project if one is named. Raises Failed or WrongUsage."""
    from db.core import names

    if len(given) == WHOLE:
        return given
    return _only(given, names.sessions(conn, given, project_id), "session", "chain PROJECT")


def branch_named(conn: "Connection", project_id: str, given: str) -> str:
    """The branch of the project that is meant, by its name or the beginning of it."""
    from db.core import names

    found = names.branches(conn, project_id, given)
    if not found:
        found = names.branches(conn, project_id, f"{BRANCH}{given}")
    if given in found or not found or len(given.removeprefix(BRANCH)) < LEAST:
        return given  # whoever looks for it says what there is
    return _only(given, found, "branch", f"branches {project_id}")


def version_named(conn: "Connection", project_id: str, given: str) -> str:
    """The version of the project that is meant, by its id or the beginning of it."""
    from db.core import names

    found = names.versions(conn, project_id, given)
    if given in found or not found or len(given) < LEAST:
        return given  # whoever looks for it says what there is
    return _only(given, found, "version", f"project {project_id}")


def _only(given: str, found: Sequence[str], what: str, lists: str) -> str:
    if not found:
        raise Failed(f"There is no {what} {given}…: `baton {lists}` lists them.")
    if len(found) > 1:
        some = ", ".join(found[:NAMED]) + (", …" if len(found) > NAMED else "")
        raise WrongUsage(f"{given} may be each of these: {some}. Give more of it.")
    return found[0]


def shown(
    conn: "Connection",
    *,
    jobs: Iterable[UUID] = (),
    sessions: Iterable[str | None] = (),
    lanes: Iterable[str] = (),
    versions: Iterable[str | None] = (),
) -> dict[Any, Name]:
    """Ids with the beginning that tells each from all others, for a terminal; a pipe and a
    document have them whole, so there they are not looked up."""
    from db.core import names

    if screen.json or not screen.terminal:
        return {}
    builds = {UUID(one): one for one in versions if one and FORM.fullmatch(one)}
    branches = sorted({lane for lane in lanes if lane != MAIN})
    found: dict[Any, str] = {
        **names.shortest_of_jobs(conn, sorted(set(jobs))),
        **{builds[one]: s for one, s in names.shortest_of_jobs(conn, list(builds)).items()},
        **names.shortest_of_sessions(conn, sorted({one for one in sessions if one})),
        **{
            one: names.shortest(
                one,
                *branches[max(n - 1, 0) : n],
                *branches[n + 1 : n + 2],
                least=len(BRANCH) + 8,
            )
            for n, one in enumerate(branches)
        },
    }
    return {one: Name(str(one), short) for one, short in found.items()}
