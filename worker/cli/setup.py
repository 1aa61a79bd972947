"""The commands around the database: bringing it up to date, and where everything is."""

import sys

import typer

from worker.cli.complaints import INTERRUPTED
from worker.cli.console import AsJson, app, screen
from worker.text.units import clean


@app.command("migrate")
def bring_up_to_date(_json: AsJson = False) -> None:
    """Bring the database up to date, while others work with it."""
    from db.core import migrate

    def tell(line: str) -> None:
        print(clean(line), file=sys.stderr if screen.json else sys.stdout, flush=True)

    try:
        applied = migrate.migrate(tell=tell)
    except KeyboardInterrupt:
        tell("Stopped: what is applied stays, and `baton migrate` goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
    page = [] if applied else ["Nothing to apply: it is up to date."]
    if screen.json or page:
        screen.show({"applied": applied}, page)


@app.command("env")
def show_env(_json: AsJson = False) -> None:
    """Print the addresses in effect, as NAME=value lines."""
    from config.settings import settings

    url = settings().redis_url
    found = {
        "DATABASE_URL": settings().database_url,
        "REDIS_URL": url,
        "CELERY_BROKER_URL": settings().redis_way().for_celery if url else "",
    }
    if settings().flower_url:
        found["BATON_FLOWER_URL"] = settings().flower_url
    if screen.json:
        screen.show(found, [])
    else:
        print(*(f"{name}={value}" for name, value in found.items()), sep="\n")  # for `eval`
