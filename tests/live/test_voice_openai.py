"""`/v1/realtime` with OpenAI's own package for Node. That for Python speaks in tests/integration."""

import json
from pathlib import Path
from urllib.parse import urlsplit

from psycopg import Connection

from dev.standin.realtime.server import Provider
from tests.gateways import Gateway
from tests.live.node import needs_node, needs_openai, node
from tests.tls import Signer, tls_before
from tests.voices import at as at
from tests.voices import key as key
from tests.voices import ledger as ledger
from tests.voices import running as running
from tests.voices import there as there
from tests.voices import url as url
from tests.waiting import wait_until

SCRIPT = Path(__file__).with_name("voice.openai.mjs")
KEPT = "select items from sessions order by updated_at desc limit 1"
pytestmark = [needs_node, needs_openai]


def test_openais_package_for_node_speaks_writes_calls_a_tool_and_interrupts(
    at: Gateway, key: str, there: Provider, ledger: Connection, tmp_path: Path
):
    there.pace = 0.1
    signer = Signer.made(tmp_path)
    port = urlsplit(at.url).port
    assert port
    with tls_before(port, signer.certificate("127.0.0.1")) as tls:
        gate = f"https://127.0.0.1:{tls}"
        ran = node(SCRIPT, GATE=gate, KEY=key, NODE_EXTRA_CA_CERTS=str(signer.ca))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seen = json.loads(ran.stdout)
    assert seen.pop("heard"), "what was spoken has a transcript"
    assert seen.pop("audio") > 1000
    assert seen == {
        "instructions": "Be brief.",
        "text": "You said: And again",
        "tool": "weather",
        "told": "It says: sunny",
        "cut": "cancelled",
        "truncated": 100,
        "errors": 0,
        "refused": {
            "code": "unknown_parameter",
            "param": "session.mood",
            "event_id": "mine",
        },
    }
    wait_until(lambda: not there.open_links, description="the link to be closed")
    (items,) = ledger.execute(KEPT).fetchone() or ([],)
    kinds = {item["type"] for item in items}
    assert kinds == {"message", "function_call", "function_call_output"}
