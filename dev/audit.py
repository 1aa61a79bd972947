"""`make audit`: what Baton is made of, and what is known of it.

    requirements.lock ──► pip-audit     known vulnerabilities; asks the index's database
                      ──► licences      each on the list below, as the installed packages say
                      ──► cyclonedx-py  .baton/audit/sbom.json, a bill of materials

Ends with 1 where something is wrong, and with 3 where nobody could be asked: pip-audit itself
passes over packages that its index has no answer for, and calls that no known vulnerability.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any, cast

LOCK = "requirements.lock"
SBOM = "sbom.json"
WRONG, UNASKED = 1, 3
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
# As packages call them; an expression is fine where one side of an OR is, and all of an AND are.
ALLOWED = {
    *("MIT", "MIT-0", "BSD", "New BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause"),
    *("Apache-2.0", "Apache Software License", "ISC License", "ISC License (ISCL)"),
    *("MIT License", "PSF-2.0", "MPL-2.0"),
}
# Others that were looked at, and why they may be here.
LOOKED_AT = {
    "psycopg": "LGPL-3.0-only",  # used as a library, unchanged, and anybody may put another there
    "psycopg-binary": "LGPL-3.0-only",
    "psycopg-pool": "LGPL-3.0-only",
    "pygit2": "GPLv2 with linking exception",  # linked, unchanged: the exception is for that
}


@dataclass(frozen=True, slots=True)
class Found:
    """What one part of the audit came to; `code` is 0 where all is well."""

    code: int
    lines: list[str]


def main() -> int:
    """`python -m dev.audit DIRECTORY`: the directory has the tools, and is given the SBOM."""
    tools = Path(sys.argv[1])
    worst = 0
    for name, found in (
        ("vulnerabilities", vulnerabilities(_asked(tools))),
        ("licences", licences(Path(LOCK).read_text())),
        ("bill of materials", bill(tools)),
    ):
        _say(f"{name}: {found.lines[0]}", *(f"  {line}" for line in found.lines[1:]))
        worst = WRONG if WRONG in (worst, found.code) else worst or found.code
    return worst


def _asked(tools: Path) -> str:
    """What pip-audit says of the lock, as JSON; nothing, where it could not ask at all."""
    command = (tools / "bin" / "pip-audit", "--requirement", LOCK, "--disable-pip")
    more = (
        "--require-hashes",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--timeout",
        "15",
    )
    return subprocess.run((*command, *more), capture_output=True, text=True, check=False).stdout


def vulnerabilities(told: str) -> Found:
    """What pip-audit's document comes to."""
    try:
        packages: list[dict[str, Any]] = json.loads(told)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Found(
            UNASKED, ["could not ask: the database of vulnerabilities does not answer"]
        )
    bad = [
        f"{each['name']} {each['version']}: {one['id']}, mended in {_any(one['fix_versions'])}"
        for each in packages
        for one in each.get("vulns", [])
    ]
    if bad:
        return Found(WRONG, [f"{len(bad)} known", *bad])
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    if skipped or not packages:
        told = f"could not ask about {len(skipped)} of {len(packages)} packages"
        return Found(UNASKED, [f"{told}: run it where the index tells of vulnerabilities"])
    return Found(0, [f"none known in {len(packages)} packages"])


def _any(versions: list[str]) -> str:
    return ", ".join(versions) or "no version"


def licences(lock: str) -> Found:
    """Whether each package of the lock that is installed here has a licence of the list."""
    bad, here = list[str](), 0
    for name, _ in PINNED.findall(lock):
        try:
            told = licence(name)
        except metadata.PackageNotFoundError:
            continue  # of another system or Python
        here += 1
        if not allowed(told) and LOOKED_AT.get(name) != told:
            bad.append(
                f"{name}: {told or 'none is named'}: look at it, then list it in dev/audit.py"
            )
    if bad:
        return Found(WRONG, [f"{len(bad)} are not on the list", *bad])
    return Found(0, [f"those of {here} packages are on the list"])


def licence(name: str) -> str:
    """What an installed package says its licence is."""
    said = cast(Message, metadata.metadata(name))
    if expression := said.get("License-Expression"):
        return str(expression)
    text = str(said.get("License") or "")
    if text in ALLOWED or " OR " in text:
        return text
    classes = [str(each) for each in said.get_all("Classifier") or []]
    named = [each.rpartition(" :: ")[2] for each in classes if each.startswith("License ::")]
    return " OR ".join(named) or text[:60]


def allowed(told: str) -> bool:
    """Whether an expression comes to licences of the list."""
    return any(
        all(part.strip() in ALLOWED for part in either.split(" AND "))
        for either in told.split(" OR ")
    )


def bill(tools: Path) -> Found:
    """Write the SBOM of the lock, in CycloneDX' JSON."""
    place = tools / SBOM
    command = (
        tools / "bin" / "cyclonedx-py",
        "requirements",
        LOCK,
        "--pyproject",
        "pyproject.toml",
    )
    more = ("--output-reproducible", "--of", "JSON", "-o", place)
    done = subprocess.run((*command, *more), capture_output=True, text=True, check=False)
    if done.returncode:
        return Found(WRONG, ["cyclonedx-py failed", *done.stderr.splitlines()[-3:]])
    made = json.loads(place.read_text())
    there = {(each["name"], each["version"]) for each in made["components"]}
    lacking = sorted(set(PINNED.findall(Path(LOCK).read_text())) - there)
    if lacking:
        return Found(WRONG, [f"lacks {len(lacking)} packages", *(name for name, _ in lacking)])
    return Found(0, [f"{len(there)} packages, in {place}"])


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
