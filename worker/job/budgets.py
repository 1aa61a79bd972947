"""Budgets, as a turn meets them: what is left before it begins, and the refusal when nothing is."""

from psycopg import Connection

from config.settings import settings
from db.jobs.attempts import Claimed
from db.sessions import budgets
from db.sessions.budgets import WHOSE, Budget, Payer, Spent
from worker.failures.errors import BudgetSpent
from worker.text.units import money

AGAIN = "raise it, or ask again after 00:00 UTC"


def for_a_turn(conn: Connection, job: Claimed, own: float | None = None) -> float | None:
    """What the job's next turn may spend (USD; None: no limit): its own, the request's or the
    setting's budget of a turn, and no more than is left of the others. Raises BudgetSpent."""
    asked = own or job.args.get("budget") or settings().budget_usd
    limits = budgets.limits()
    budgets.count(conn)
    for one in budgets.spent(conn, limits, Payer(job.id, job.project_id, job.user_id)):
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
