"""The programs that the tests of the browser's side need: Node, its packages, Chromium.

    make node && apt-get install chromium

What is not there is left out, and counted aloud at the end of a run.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.machine import LACKS

CHECKOUT = Path(__file__).parents[2]
MODULES = CHECKOUT / ".baton" / "node" / "node_modules"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""


def _version() -> int:
    node = shutil.which("node")
    if not node:
        return 0
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return int(said.stdout.strip().removeprefix("v").partition(".")[0] or 0)


def _needs(name: str, *, there: bool) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not there, reason=LACKS + name)


needs_node = _needs("Node 20 or newer", there=_version() >= 20)
needs_packages = _needs(
    "npm's ws and typescript (make node)",
    there=(MODULES / "ws").is_dir() and (MODULES / "typescript").is_dir(),
)
needs_stream_client = _needs(
    "npm's @durable-streams/client (make node)",
    there=(MODULES / "@durable-streams").is_dir(),
)
needs_openai = _needs(
    "npm's openai (make node)",
    there=(MODULES / "openai").is_dir(),
)
needs_chromium = _needs(
    "Chromium and playwright-core",
    there=bool(CHROMIUM) and (MODULES / "playwright-core").is_dir(),
)


def node(
    *words: str | Path, timeout: float = 120, **more: str
) -> subprocess.CompletedProcess[str]:
    """Runs Node in the checkout; `more` is added to its environment."""
    return subprocess.run(
        ["node", *map(str, words)],
        cwd=CHECKOUT,
        env={**os.environ, "BATON_NODE_MODULES": str(MODULES), "CHROMIUM": CHROMIUM, **more},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
