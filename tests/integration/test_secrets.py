"""Secrets show nowhere by mistake: in no repr, no argument of a process, no log of Postgres."""

import base64
import socket
import threading
from pathlib import Path
from typing import Any, get_args

import psutil
import psycopg
import pytest
from pydantic import SecretStr

from config.settings import Settings, settings
from db.core import pool
from dev.stack.embedded import open_postgres
from dev.stack.environment import Model
from dev.stack.flower import Door
from dev.stack.noted import Services
from tests.conftest import Configure
from tests.waiting import wait_until
from worker.failures.errors import WorkspaceAway
from worker.workspace.git import unsaid_of
from worker.workspace.trees import Trees

S = "hunter2hunter2"
SECRETS = {
    "DATABASE_URL": f"postgresql://u:{S}@h/d",
    "REDIS_URL": f"redis://u:{S}@h:1/0",
    "BATON_PLAIN_BROKER_URL": f"redis://u:{S}@h:1/0",
    "ANTHROPIC_API_KEY": f"sk-{S}",
    "ANTHROPIC_AUTH_TOKEN": f"sk-{S}",
    "BATON_SECRET": S,
    "OPENAI_API_KEY": f"sk-{S}",
    "BATON_TWILIO_TOKEN": S,
    "BATON_CALLBACK_SECRET": f"whsec_{S}{S}{S}aa",
    "BATON_FLOWER_URL": f"http://u:{S}@h:1",
    "BATON_WORKSPACE_REMOTE": f"https://u:{S}@h/{{project}}.git",
}
# Of a model and of a provider, without a password; of a page for everybody.
NONE = {"anthropic_base_url", "realtime_url", "web_url"}


def test_no_setting_shows_its_secret(configure: Configure):
    configure(**SECRETS)
    for shown in (repr(settings()), str(settings()), str(settings().model_dump())):
        assert S not in shown
    hidden = [
        one for one in Settings.model_fields if isinstance(getattr(settings(), one), SecretStr)
    ]
    assert len(hidden) == len(SECRETS)


def test_every_setting_that_may_hold_a_secret_is_one():
    """By its name: an address, a key, a password, a token."""
    for name, field in Settings.model_fields.items():
        if (
            name.endswith(("_url", "_key", "_remote", "_password", "_token", "_proxy"))
            and name not in NONE
        ):
            assert SecretStr in (field.annotation, *get_args(field.annotation)), name


def test_what_runs_is_shown_without_its_passwords():
    url = f"redis://u:{S}@h/0"
    shown: list[Any] = [
        Services(url, url, url, flower_url=url),
        Door(url, "", {"A": S}),
        Model("", key=S),
    ]
    assert S not in repr(shown)


@pytest.mark.parametrize(
    ("word", "shown", "login"),
    [
        (f"https://ann:{S}@h:1/x.git", "https://h:1/x.git", "ann:" + S),
        ("http://ann:a%40b%3A@h/x", "http://h/x", "ann:a@b:"),
        ("http://ann:a@b@h/x", "http://h/x", "ann:a@b"),
        ("https://ann@h/x.git", "https://ann@h/x.git", ""),
        ("ssh://git@h/x.git", "ssh://git@h/x.git", ""),
        ("file:///x:y@z", "file:///x:y@z", ""),
    ],
)
def test_git_has_the_password_of_a_url_from_its_environment(word: str, shown: str, login: str):
    command, env = unsaid_of(("git", "fetch", word, "abc"))
    assert command == ("git", "fetch", shown, "abc")
    given = env.get("GIT_CONFIG_VALUE_0", "").removeprefix("Authorization: Basic ")
    assert base64.b64decode(given).decode() == login


def test_no_git_of_ours_has_a_password_among_its_arguments(tmp_path: Path):
    """git, its helpers, and what starts them, while they wait for a server."""
    trees = Trees(tmp_path / "x.git", tmp_path)
    trees.create()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://ann:{S}@127.0.0.1:{deaf.getsockname()[1]}/x.git"

        def ask() -> None:
            with pytest.raises(WorkspaceAway):
                trees.refs_of(url, ["refs/*"], within=3)

        asking = threading.Thread(target=ask)
        asking.start()
        seen = wait_until(_remote_helper, description="git to ask the server")
        assert S not in " ".join(seen)
        asking.join()


def _remote_helper() -> list[str]:
    """The arguments of all that we have started, once git's part for http is among it."""
    found: list[str] = []
    for child in psutil.Process().children(recursive=True):
        try:
            found += child.cmdline()
        except psutil.Error:
            continue
    return found if any("remote-http" in word for word in found) else []


PROMPT = "the-prompt-that-nobody-may-read"
INTO_A_CHECK = "insert into checked (content) values (%s)"


def test_what_postgres_refuses_of_ours_is_not_in_its_log(tmp_path: Path, configure: Configure):
    """Neither the statement, nor the row that it names in a detail."""
    with open_postgres(tmp_path, durable=False) as server:
        configure(DATABASE_URL=server.url)
        with psycopg.connect(server.url, autocommit=True) as stranger:
            stranger.execute("create table checked (content text check (content = 'x'))")
            _refused(stranger, INTO_A_CHECK, PROMPT)
            _refused(stranger, f"insert into checked values ('{PROMPT}')")
            assert PROMPT not in server.log.read_text(), "nor that of a stranger in `baton up`"
            for setting in (
                "log_min_error_statement = 'error'",
                "log_error_verbosity = 'default'",
            ):
                stranger.execute(f"alter role baton set {setting}".encode())  # as elsewhere
        with pool.connect() as ours:
            _refused(ours, INTO_A_CHECK, PROMPT)
            _refused(ours, f"select nothing('{PROMPT}')")
            names = ("log_min_error_statement", "log_error_verbosity")
            told = [ours.execute(f"show {name}".encode()).fetchone() for name in names]
            assert told == [("panic",), ("terse",)]
    assert PROMPT not in server.log.read_text()


def _refused(conn: psycopg.Connection, statement: str, *given: str) -> None:
    with pytest.raises(psycopg.Error):
        conn.execute(statement.encode(), given or None)
