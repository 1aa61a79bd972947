"""Reading a Procfile, and choosing ports."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dev.stack.processes import LOOPBACK, free_port, own_port
from dev.stack.procfile import CODE, BadProcfile, read_procfile


def test_our_procfile_names_its_processes():
    assert list(read_procfile(CODE)) == ["worker", "beat", "relay", "egress", "flower", "web"]


def test_a_folder_without_a_procfile_is_given_ours(tmp_path: Path):
    assert read_procfile(tmp_path) == read_procfile(CODE)


def test_the_procfile_of_the_folder_goes_before_ours(tmp_path: Path):
    (tmp_path / "Procfile").write_text("# a comment\n\nweb: serve --port=${PORT:-80}: yes\n")
    assert read_procfile(tmp_path) == {"web": "serve --port=${PORT:-80}: yes"}


@pytest.mark.parametrize("text", ["no colon", "web:", "a: x\na: y", "two words: x"])
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, text: str):
    (tmp_path / "Procfile").write_text(text)
    place = re.escape(str(tmp_path / "Procfile"))
    with pytest.raises(BadProcfile, match=rf"{place}, line \d: write"):
        read_procfile(tmp_path)


def test_a_port_that_is_taken_is_not_chosen():
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(first=port) != port
    assert free_port(first=port) == port


def test_a_port_that_another_is_about_to_listen_at_is_not_taken():
    """Between the choice of a port and its process that listens lie seconds."""
    program = "import sys; from dev.stack.processes import own_port; print(own_port(), flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        port = int(other.stdout.readline())
        assert free_port(first=port) == port, "nobody listens there yet"
        assert own_port(first=port) != port
        other.communicate()
    assert own_port(first=port) == port
    assert own_port(first=port) == port, "what is ours stays ours"
