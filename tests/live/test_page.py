"""The page in Chromium: messages survive reloads, restarts, tunnels, and lost sessions.

The default run shows that a message is sent and answered, and none lost that follows another quickly
or is written in another tab, and what is shown of checks; the others, many and slow, are the long run's.
"""

from pathlib import Path

import pytest

from tests.live.node import needs_chromium, needs_node, needs_packages, node

HERE = Path(__file__).parent

pytestmark = [needs_node, needs_packages, needs_chromium]


def test_messages_are_sent_and_answered_and_checks_shown_in_chromium():
    _run(
        "a message is sent|a text appears|while the (message before it|other writes)|more than is kept"
        "|checks of a turn|good: repair|check of its own|a race:"
    )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_what_people_do_and_what_happens_to_their_messages_meanwhile():
    _run(".")


def _run(names: str) -> None:
    ran = node(
        *("--test", "--test-reporter=tap", f"--test-name-pattern={names}"),
        HERE / "page.browser.mjs",
        timeout=580,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# fail 0" in ran.stdout
    assert "# pass 0" not in ran.stdout
