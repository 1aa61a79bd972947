"""What the command line says when something goes wrong: one sentence, and the exit code."""

import os
import sys
import traceback
from pathlib import Path

import psycopg
import typer
from typer.exceptions import Abort, TyperException

from config.settings import BadSettings
from db.deletion import Held
from db.jobs import REFUSED
from db.migrate import MigrationRefused
from db.pool import NoDatabase
from db.projects import HeadHeld
from worker.screen import clean

FAILED, USAGE, INTERRUPTED = 1, 2, 130
EXPECTED = (NoDatabase, HeadHeld, Held, BadSettings, MigrationRefused, LookupError)


class Failed(Exception):
    """It cannot be done, or did not succeed; the text says what to do. Exit code 1."""


class WrongUsage(Exception):
    """It was asked for wrongly; the text says how to ask. Exit code 2."""


def complain(exc: BaseException) -> int:
    """Say on stderr what went wrong, and return the exit code."""
    match exc:
        case typer.Exit():
            return exc.exit_code
        case SystemExit():
            return exc.code if isinstance(exc.code, int) else FAILED
        case BrokenPipeError():
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - nobody reads any more
            return FAILED
        case KeyboardInterrupt() | Abort():
            return _say("Stopped; what was asked for goes on.", INTERRUPTED)
        case WrongUsage():
            return _say(str(exc), USAGE)
        case TyperException():
            return _say(_usage(exc), USAGE if exc.exit_code == USAGE else FAILED)
        case _:
            return _say(_sentence(exc), FAILED)


def _say(sentence: str, code: int) -> int:
    print(clean(" ".join(sentence.split())), file=sys.stderr)  # noqa: T201
    return code


def _usage(exc: TyperException) -> str:
    """The parser's complaint, and where to look."""
    context = getattr(exc, "ctx", None)
    command = getattr(context, "command_path", "baton")
    told = " ".join(exc.format_message().replace("Value error, ", "").split()).rstrip(".")
    return f"{told}: see `{command} --help`."


def _sentence(exc: BaseException) -> str:
    from worker.errors import BadRequest, WorkspaceAway, WorkspaceBusy, WorkspaceFailed
    from worker.sentences import for_people

    match exc:
        case Failed() | BadRequest() | WorkspaceAway() | WorkspaceBusy() | WorkspaceFailed():
            return str(exc)
        case UnicodeEncodeError():
            return "What was given is not UTF-8: convert it."
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedColumn():
            return "The database is not as Baton left it: run `baton migrate`."
        case psycopg.Error() if exc.sqlstate == REFUSED:
            return exc.diag.message_primary or "It was refused."
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return f"Postgres went away ({_first_line(exc)}): look at it, then ask again."
        case psycopg.Error():
            return f"Postgres refuses it: {_first_line(exc)}."
        case _ if isinstance(exc, EXPECTED) and not isinstance(exc, (KeyError, IndexError)):
            return str(exc)
        case OSError():
            return f"{for_people(exc)}: look at it, then ask again."
        case _:
            where = traceback.extract_tb(exc.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            return f"This is a fault in Baton, report it: {for_people(exc)} ({place})."


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0].rstrip(".")
