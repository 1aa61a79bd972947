"""Of a running Baton: what its logs and the arguments of its processes do not hold."""

import psutil
import psycopg
import pytest
from psycopg import Connection

from tests.acceptance.outside import Baton
from worker.client import ChatPlan

PROMPT = "the-prompt-that-nobody-may-read"
LITERAL = f"select baton_enqueue(project_id => 'p', user_id => '', prompt => '{PROMPT}')"


def passwords(baton: Baton) -> list[str]:
    up = baton.up
    urls = (up.database_url, up.redis_url, up.services.plain_broker_url, up.flower_url)
    return [url.rpartition("@")[0].rpartition(":")[2] for url in urls]


def test_no_log_has_a_password_or_a_prompt(baton: Baton):
    """Neither of our processes nor of the servers; also not of what was refused."""
    assert baton.chat(baton.project(), f"say {PROMPT}")["state"] == "done"
    _refused(baton.conn, LITERAL)
    _refused(baton.conn, f"select nothing('{PROMPT}')")
    logs = {file.name: file.read_text() for file in (baton.root / ".baton/log").iterdir()}
    assert {"postgres.log", "redis.log", "worker.log", "flower.log"} <= set(logs)
    for secret in (*passwords(baton), PROMPT):
        assert secret
        assert [name for name, text in logs.items() if secret in text] == []


def _refused(conn: Connection, statement: str) -> None:
    with pytest.raises(psycopg.Error):
        conn.execute(statement.encode())


def test_no_process_has_a_password_or_a_prompt_among_its_arguments(baton: Baton):
    project = baton.project()
    assert baton.chat(project, "say done")["state"] == "done"
    job = baton.ask(ChatPlan(project=project, user="ann", prompt=f"sleep 2\nsay {PROMPT}"))
    baton.until(job, "running")
    seen = ""
    while baton.job(job)["state"] == "running":
        for process in psutil.Process().children(recursive=True):
            seen += "\n".join(_arguments(process))
    assert "claude" in seen, "the agent was among them"
    for secret in (*passwords(baton), PROMPT):
        assert secret not in seen


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
