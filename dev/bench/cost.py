"""`baton bench cost`: what a chain weighs, leg by leg, and what each reads of its parent.

The CLI is the real one; the model and its prompt cache are the stand-in's: all tokens are its
estimates, so only shares and ratios mean anything.
"""

import os
import tempfile
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from config import logging as logs
from config.settings import STANDIN_KEY, settings
from db.core import pool
from db.core.migrate import migrate
from dev.bench.egress import proxy
from dev.bench.legs import Chain, Leg
from dev.stack.services import services
from dev.stack.up import EXPECTED
from dev.standin.server import standin


def main(root: Path) -> int:
    """Print the figures; data lies in a directory of its own that is removed again."""
    console = Console(highlight=False)
    (root / ".baton").mkdir(exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir=root / ".baton", prefix="bench-") as place,
            services(Path(place), database_url="", redis_url="") as running,
            standin(scenario="plain", speed=0) as model,
        ):
            migrate(running.database_url)
            os.environ |= {
                "DATABASE_URL": running.database_url,
                "REDIS_URL": running.redis_url,
                "ANTHROPIC_BASE_URL": model.url,
                "ANTHROPIC_API_KEY": STANDIN_KEY,
                "NO_PROXY": "127.0.0.1",
                "BATON_COMPACT": "always",
                "BATON_WORKSPACES": f"{place}/workspaces",
                "BATON_AGENT_HOME": f"{place}/agent",
                "BATON_EGRESS_HOME": f"{place}/egress",
                "BATON_LOG_LEVEL": "error",
            }
            settings.cache_clear()
            logs.configure()
            url = settings().database_url.get_secret_value()
            with proxy(), psycopg.connect(url, autocommit=True) as conn:
                chain = Chain(conn, lambda: model.requests, "bench")
                chain.build()
                chain.chat()
                chain.update()
            console.print(_table(chain.legs))
            pool.close()
    except EXPECTED as exc:
        console.print(str(exc), markup=False)
        return 1
    return 0


def _table(legs: list[Leg]) -> Table:
    table = Table(title="A chain, its chat and its update: tokens, as the stand-in counts them")
    for column in ("leg", "requests", "tools", "fixed", "read at first", "context", "weight"):
        table.add_column(column, justify="left" if column == "leg" else "right")
    for leg in legs:
        figures = (leg.fixed, leg.read, leg.context, leg.weight)
        tools = len(leg.asked[0].tools)
        table.add_row(
            leg.name, str(len(leg.asked)), str(tools), *(f"{x:,.0f}" for x in figures)
        )
    table.add_section()
    table.add_row("in all", *[""] * 5, f"{sum(leg.weight for leg in legs):,.0f}")
    return table
