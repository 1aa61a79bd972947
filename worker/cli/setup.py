"""The commands around the database: bringing it up to date, and where everything is."""

import sys
from typing import Annotated

import typer

from worker.cli.complaints import INTERRUPTED
from worker.cli.console import AsJson, app, screen
from worker.text.units import clean


@app.command("migrate")
def bring_up_to_date(
    roles: Annotated[
        bool,
        typer.Option(
            "--roles",
            help="Also make the roles baton_worker, baton_producer and baton_reader, and give"
            " them what is theirs.",
        ),
    ] = False,
    _json: AsJson = False,
) -> None:
    """Bring the database up to date, while others work with it."""
    from db.core import migrate

    def tell(line: str) -> None:
        print(clean(line), file=sys.stderr if screen.json else sys.stdout, flush=True)

    try:
        applied = migrate.migrate(tell=tell, with_roles=roles)
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

    url = settings().redis_url.get_secret_value()
    plain = settings().plain_broker_url.get_secret_value() or url
    found = {
        "DATABASE_URL": settings().database_url.get_secret_value(),
        "REDIS_URL": url,
        "CELERY_BROKER_URL": settings().redis_way(plain).for_celery if plain else "",
    }
    if settings().flower_url:
        found["BATON_FLOWER_URL"] = settings().flower_url.get_secret_value()
    if settings().web_url:
        found["BATON_WEB_URL"] = settings().web_url
    if screen.json:
        screen.show(found, [])
    else:
        print(*(f"{name}={value}" for name, value in found.items()), sep="\n")  # for `eval`


@app.command("redis-acl")
def show_redis_rules(_json: AsJson = False) -> None:
    """Print rules for Redis' users, as lines of its ACL file.

    Each time with new passwords, which are kept nowhere.
    """
    from secrets import token_hex

    from worker.broker import rights

    made = {
        name: (token_hex(16), rules)
        for name, rules in (("baton", rights.OWN), ("baton-producer", rights.PRODUCER))
    }
    lines = [rights.rule(name, password, rules) for name, (password, rules) in made.items()]
    if screen.json:
        passwords = {name: password for name, (password, _) in made.items()}
        screen.show({"lines": lines, "passwords": passwords}, [])
        return
    print(*lines, sep="\n")
    urls = [f"redis://{name}:{password}@HOST:6379/0" for name, (password, _) in made.items()]
    print(
        f"Put these lines into Redis' ACL file (Redis 7 or newer). REDIS_URL={urls[0]} is for the"
        f" processes of Procfile, BATON_PLAIN_BROKER_URL={urls[1]} what `baton env` then tells"
        " plain producers. The passwords are kept nowhere.",
        file=sys.stderr,
    )
