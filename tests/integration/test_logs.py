"""Logs: every line begins with a moment of one form, whoever wrote it, and names its project."""

import json
import re
import subprocess
import sys
from pathlib import Path

import structlog
from structlog.testing import capture_logs

from dev.agents.scripted import scripted
from tests.commandline import checkout as checkout
from tests.commandline import environment as environment
from tests.running import AtWork, P, U
from worker.client import Build

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ")
SAY = """
import logging, sys
from worker.app import app, log
app.log.setup("INFO")  # as `celery worker` and `celery beat` do
logging.getLogger("celery.apps.worker").info("%s ready.", "celery@here")
log.warning("worker.not_reported", error={"urls": ["redis://user:secret@there/0 is away"]})
logging.getLogger("kombu").error("redis://user:secret@there/0 is away")
import tornado.log, tornado.options, flower.command  # as `celery flower` does
logging.getLogger().handlers = []
tornado.options.parse_command_line(["flower"])
app.loader.import_default_modules()
logging.getLogger("flower.command").info("Visit me")
"""


def said(environment: dict[str, str], cwd: Path, **more: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SAY],
        env=environment | more,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()


def test_lines_of_celery_flower_and_ours_have_one_form_of_time(
    environment: dict[str, str], checkout: Path
):
    lines = said(environment, checkout)
    assert len(lines) == 4
    assert all(MOMENT.match(line) for line in lines)
    for line, text in zip(
        lines,
        ("celery@here ready.", "worker.not_reported", "redis://", "Visit me"),
        strict=True,
    ):
        assert text in line
    assert "secret@" not in "".join(lines)
    assert "[secret]@there" in lines[2], "what others write is redacted too"


FORGED = r"""
import logging, sys
from worker.app import app, log
app.log.setup("INFO")
text = "it ended\n2026-11-29T00:00:00.000000Z [info] job.done job=1\x1b[2J\r\x9b2J\u2028x"
log.warning("agent.failed", error=text, more=[text])
logging.getLogger("celery").warning(text)
"""


def test_no_text_makes_a_line_of_its_own_or_moves_the_cursor(
    environment: dict[str, str], checkout: Path
):
    done = subprocess.run(
        [sys.executable, "-c", FORGED],
        env=environment,
        cwd=checkout,
        capture_output=True,
        check=True,
    )
    said = done.stderr.decode()
    lines = said.split("\n")[:-1]
    assert len([line for line in lines if MOMENT.match(line)]) == 2
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", said), said


def test_as_json_every_line_is_a_document(environment: dict[str, str], checkout: Path):
    lines = [json.loads(line) for line in said(environment, checkout, BATON_LOG_JSON="1")]
    assert lines[0]["event"] == "celery@here ready."
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["logger"] == "celery.apps.worker"


def test_a_line_about_a_job_names_its_project(at_work: AtWork):
    job = at_work.ask(Build(project=P, user=U, prompt="x"))
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        at_work.run(job, agent=scripted())
    (started,) = [line for line in lines if line["event"] == "job.started"]
    assert (started["project_id"], started["job"]) == (P, str(job))
