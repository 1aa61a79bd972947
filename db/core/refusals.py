"""What Postgres refuses for good: a row breaks a rule of a table, ours or the product's.

The rule is named and no value is: a row may hold what a user wrote.
"""

import psycopg
from psycopg import errors

# Asked again, each is refused again. (An outage is none of them: db/core/pool.py.)
FOR_GOOD = (psycopg.IntegrityError, psycopg.DataError, errors.RaiseException)


def rule(exc: psycopg.Error) -> str:
    """The rule that was broken, as `constraint "one_name" of table "project_versions"`."""
    diag = exc.diag
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
