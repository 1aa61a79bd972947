"""What the command line says when something goes wrong: one sentence, and the exit code.

The sentence is on stderr. With `--json` the one document on stdout says it too, with the code by
which programs tell refusals apart: {"error": {"code": "busy", "message": "…", "field": "busy"}}.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import typer
from typer.exceptions import Abort, TyperException

from worker.failures.failed import Failed
from worker.text.units import clean

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class WrongUsage(Exception):
    """It was asked for wrongly; the text says how to ask. Exit code 2."""


class Left(Exception):
    """Who watched has stopped watching; the text says how to go on. Exit code 130."""


def complain(exc: BaseException, *, document: bool = False) -> int:
    """Say on stderr what went wrong, and return the exit code; `document`: on stdout too, as JSON."""
    match exc:
        case typer.Exit():
            return exc.exit_code
        case SystemExit():
            return exc.code if isinstance(exc.code, int) else FAILED
        case BrokenPipeError():
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - nobody reads any more
            return FAILED
        case KeyboardInterrupt() | Abort():
            told, code = {"code": "interrupted"}, INTERRUPTED
            sentence = "Stopped; what was asked for goes on."
        case Left():
            told, code, sentence = {"code": "interrupted"}, INTERRUPTED, str(exc)
        case WrongUsage():
            told, code, sentence = {"code": "wrong_usage"}, USAGE, str(exc)
        case TyperException():
            code = USAGE if exc.exit_code == USAGE else FAILED
            told, sentence = {"code": "wrong_usage"}, _usage(exc)
        case _:
            told, code, sentence = _reason(exc), FAILED, _sentence(exc)
    sentence = clean(" ".join(sentence.split()))
    if document:
        print(json.dumps({"error": {**told, "message": sentence}}, indent=2))
    print(sentence, file=sys.stderr)
    return code


def _reason(exc: BaseException) -> dict[str, Any]:
    """The code, and for a refusal the field and when to ask again, as far as there is one."""
    from db.core.codes import refusal
    from worker.failures.refused import Refused, as_refused

    if why := refusal(exc):
        exc = as_refused(why)
    if not isinstance(exc, Refused):
        return {"code": "failed"}
    again_at = exc.again_at.isoformat() if exc.again_at else None
    told = {"code": exc.code, "field": exc.field, "again_at": again_at}
    return {name: value for name, value in told.items() if value is not None}


def _usage(exc: TyperException) -> str:
    """The parser's complaint, and where to look."""
    context = getattr(exc, "ctx", None)
    command = getattr(context, "command_path", "baton")
    told = " ".join(exc.format_message().replace("Value error, ", "").split()).rstrip(".")
    return f"{told}: see `{command} --help`."


def _sentence(exc: BaseException) -> str:
    if isinstance(exc, Failed):
        return str(exc)
    from config.settings import BadSettings
    from db.core.pool import NoDatabase

    if isinstance(exc, (BadSettings, NoDatabase)):
        return str(exc)
    return _other(exc)


def _other(exc: BaseException) -> str:
    """What only commands raise that have imported all this anyhow."""
    import psycopg

    from db.core.codes import refusal
    from db.core.migrate import MigrationRefused
    from db.core.outages import is_away
    from db.operations.deletion import Held
    from db.projects.heads import HeadHeld
    from worker.failures.errors import BadRequest, WorkspaceAway, WorkspaceBusy, WorkspaceFailed

    match exc:
        case BadRequest() | WorkspaceAway() | WorkspaceBusy() | WorkspaceFailed():
            return str(exc)
        case HeadHeld() | Held() | MigrationRefused():
            return str(exc)
        case LookupError() if not isinstance(exc, (KeyError, IndexError)):
            return str(exc)
        case UnicodeEncodeError():
            return "What was given is not UTF-8: convert it."
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedColumn():
            return "The database is not as Baton left it: run `baton migrate`."
        case psycopg.Error() if why := refusal(exc):
            return why.sentence
        case psycopg.errors.LockNotAvailable():
            return "Somebody's transaction holds what this needs: end it, and ask again."
        case psycopg.Error() if is_away(exc):
            return f"Postgres went away ({_first_line(exc)}): look at it, then ask again."
        case psycopg.Error():
            return f"Postgres refuses it: {_first_line(exc)}."
        case OSError():
            return f"{_for_people(exc)}: look at it, then ask again."
        case _:
            where = traceback.extract_tb(exc.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            return f"This is a fault in Baton, report it: {_for_people(exc)} ({place})."


def _for_people(exc: BaseException) -> str:
    from worker.failures.sentences import for_people

    return for_people(exc)


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0].rstrip(".")
