"""Budgets, as a turn meets them: what is left before it begins, and the refusal when nothing is."""

from decimal import Decimal

from psycopg import Connection

from config.settings import settings
from db.jobs.attempts import Claimed
from db.sessions import budgets
from db.sessions.budgets import SCOPES, Budget, Spent
from worker.failures.errors import BudgetSpent
from worker.text.units import money

WHOSE = {
    "job": "this job",
    "project": "this project today",
    "user": "this user today",
    "day": "all projects today",
}
AGAIN = "raise it, or ask again after 00:00 UTC"


def set_here() -> dict[str, Budget]:
    """The budgets of the settings, by scope; those without a limit are left out."""
    here = settings()
    found = dict[str, Budget]()
    for scope in SCOPES:
        usd: float | None = getattr(here, f"budget_{scope}_usd")
        turns: int | None = getattr(here, f"budget_{scope}_turns")
        if budget := Budget(None if usd is None else Decimal(str(usd)), turns):
            found[scope] = budget
    return found


def for_a_turn(conn: Connection, job: Claimed, own: float | None = None) -> float | None:
    """What the job's next turn may spend (USD; None: no limit): its own, the request's or the
    setting's budget of a turn, and no more than is left of the others. Raises BudgetSpent."""
    asked = own or job.args.get("budget") or settings().budget_usd
    limits = set_here()
    for one in budgets.spent(
        conn, limits, job=job.id, project=job.project_id, user=job.user_id
    ):
        limit = limits[one.scope]
        _check(limit, one)
        if limit.usd is not None:
            left = float(limit.usd - one.usd)
            asked = left if asked is None else min(float(asked), left)
    return asked


def _check(limit: Budget, spent: Spent) -> None:
    name, what = f"BATON_BUDGET_{spent.scope.upper()}", AGAIN
    if spent.scope == "job":
        what = "raise it, or ask for less in a new job"
    if limit.turns is not None and spent.turns >= limit.turns:
        raise BudgetSpent(
            f"The budget of {WHOSE[spent.scope]} is used up: {spent.turns} turns, of"
            f" {limit.turns} ({name}_TURNS): {what}."
        )
    if limit.usd is not None and spent.usd >= limit.usd:
        raise BudgetSpent(
            f"The budget of {WHOSE[spent.scope]} is used up: {money(spent.usd)}, of"
            f" {money(limit.usd)} ({name}_USD): {what}."
        )
