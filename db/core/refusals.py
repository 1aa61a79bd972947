"""What Postgres refuses for good: a row breaks a rule of a table, ours or the product's, or a limit of its own.

The rule is named and no value is: a row may hold what a user wrote.
"""

import psycopg
from psycopg import errors

from db.core.outages import may_pass

# What a row or a rule of the product's meets. The other classes are our statements' own fault.
RULES = (
    psycopg.IntegrityError,
    psycopg.DataError,
    errors.RaiseException,
    psycopg.OperationalError,  # a row too large for its index, a trigger's function that fails
)


def is_refused(exc: BaseException) -> bool:
    """Whether it is refused again however often it is asked. An outage is not (db/core/outages.py)."""
    return isinstance(exc, RULES) and not may_pass(exc)


def rule(exc: psycopg.Error) -> str:
    """The rule that was broken, as `constraint "one_name" of table "project_versions"`."""
    diag = exc.diag
    if isinstance(exc, errors.ProgramLimitExceeded) and diag.message_primary:
        return diag.message_primary  # the size, the limit and the index
    what = [
        f'{kind} "{name}"'
        for kind, name in (
            ("constraint", diag.constraint_name),
            ("column", diag.column_name),
            ("table", diag.table_name),
        )
        if name
    ]
    if what:
        return " of ".join(what)
    if isinstance(exc, errors.RaiseException | errors.StringDataRightTruncation):
        return diag.message_primary or type(exc).__name__  # names types, or is the product's
    return type(exc).__name__
