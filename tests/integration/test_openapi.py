"""The OpenAPI document against the gateway that serves it, by schemathesis: what fits the document and
what does not is answered, and never by an error of the server's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateways import gateway

PROGRAM = Path(sys.executable).with_name("schemathesis")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("examples", [5, pytest.param(20, marks=pytest.mark.long)])
def test_whatever_is_sent_is_answered_as_the_document_says(
    dsn: str, redis_url: str, tmp_path: Path, examples: int
):
    with gateway(dsn, redis_url, tmp_path / "log") as at:
        at.ask("shop")
        done = subprocess.run(
            [
                *(PROGRAM, "run", f"{at.url}/v1/openapi.json", "--checks", CHECKS),
                *("--header", f"Authorization: Bearer {at.key}", "--request-timeout", "90"),
                *("--max-examples", str(examples), "--seed", "1", "--no-color"),
                *("--exclude-path-regex", "/events$"),  # it may stream
                *("--phases", "examples,coverage,fuzzing", "--workers", "1"),
            ],
            cwd=tmp_path,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        log = (tmp_path / "log").read_text()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Traceback" not in log, log[-3000:]
