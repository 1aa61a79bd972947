"""Baton as it is installed: a Python that has what requirements.lock names, the wheel, no more.

The suite uses no network, so the packages are those of the environment that it runs in, each
file linked: what a package of the lock does not have, nobody has here. `make install-check`
gives an environment that pip made from the registry instead (INSTALLED=directory).
"""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[1]
LOCKS = {name: CHECKOUT / name for name in ("requirements.lock", "requirements-dev.lock")}
SCRIPT = """#!{python}
import sys
from {module} import {attr}
sys.exit({attr}())
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment of its own; `place` is where its processes run: not in the checkout."""

    root: Path
    place: Path

    def environment(self, **more: str) -> dict[str, str]:
        """This process's, without the way to the checkout."""
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**env, "PATH": f"{self.root / 'bin'}{os.pathsep}{env['PATH']}", **more}

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to the end."""
        return subprocess.run(
            [self.root / "bin" / command[0], *command[1:]],
            env=self.environment(**more),
            cwd=self.place,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def locked(lock: Path) -> Iterator[Requirement]:
    """What the lock names for this Python and this system."""
    for line in lock.read_text().splitlines():
        if line[:1].isalnum():
            wanted = Requirement(line.rstrip("\\ "))
            if wanted.marker is None or wanted.marker.evaluate():
                yield wanted


def install_client(root: Path) -> Path:
    """An environment with the wheel of baton-client, what it depends on, and no more."""
    target, place = root / "client", CHECKOUT / "clients" / "python"
    venv.create(target, symlinks=True)
    wanted = tomllib.loads((place / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in _closure([*wanted, "psycopg[binary]"]):
        _link(distribution(name), Requirement(name), target)
    _quietly("hatchling", "build", "-t", "wheel", "-d", str(root), cwd=place)
    (wheel,) = root.glob("baton_client-*.whl")
    options = ("--quiet", "--no-index", "--no-deps", str(wheel))
    _quietly("pip", "--python", str(target / "bin/python"), "install", *options)
    return target


def _closure(wanted: list[str]) -> set[str]:
    """The names of what these need here, and of what that needs."""
    seen, left = set[str](), [Requirement(one) for one in wanted]
    while left:
        one = left.pop()
        found, name = distribution(one.name), canonicalize_name(one.name)
        for extra in one.extras or {""}:
            if f"{name}[{extra}]" in seen:
                continue
            seen.add(f"{name}[{extra}]")
            left += [
                more
                for more in map(Requirement, found.requires or ())
                if more.marker is None or more.marker.evaluate({"extra": extra})
            ]
    return {one.partition("[")[0] for one in seen}


def install(root: Path) -> Path:
    """Make the environment, unless one is given; put the wheel into it. Its directory."""
    given = os.environ.get("INSTALLED")
    target = Path(given) if given else root / "installed"
    if not given:
        venv.create(target, symlinks=True)
        for wanted in locked(LOCKS["requirements.lock"]):
            _link(distribution(wanted.name), wanted, target)
    _quietly("hatchling", "build", "-t", "wheel", "-d", str(root))
    (wheel,) = root.glob("*.whl")
    options = ("--quiet", "--no-index", "--no-deps", "--force-reinstall", str(wheel))
    _quietly("pip", "--python", str(target / "bin/python"), "install", *options)
    return target


def _quietly(module: str, *arguments: str, cwd: Path = CHECKOUT) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _link(found: Distribution, wanted: Requirement, target: Path) -> None:
    """Put every file of the distribution into the environment, and make its programs anew."""
    assert found.version in wanted.specifier, f"{wanted} is locked, {found.version} is here"
    (libraries,) = target.glob("lib/python*/site-packages")
    for file in found.files or ():
        if file.parts[0] != "..":
            place = libraries / file
            place.parent.mkdir(parents=True, exist_ok=True)
            _same(Path(str(found.locate_file(file))), place)
    for program in found.entry_points.select(group="console_scripts"):
        script = target / "bin" / program.name
        told = {"python": target / "bin/python", "module": program.module, "attr": program.attr}
        script.write_text(SCRIPT.format(**told))
        script.chmod(0o755)


def _same(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # another filesystem
        shutil.copy2(source, place)
