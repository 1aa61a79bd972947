"""What `make check` and `make audit` say of what they look at, and that they say it at all."""

import json
from pathlib import Path

import pytest

from dev import audit, rules

ROOT = Path(__file__).parents[2]
BROKEN = {
    "shell": ["subprocess.run(x, shell=True)", "os.system(x)", "f(shell=y)"],
    "swallowed": [
        "try:\n    f()\nexcept Exception:\n    pass",
        "with suppress(Exception):\n    f()",
        "for x in y:\n    try:\n        f()\n    except:\n        continue",
    ],
    "query": [
        "conn.execute(f'select {name}')",
        "conn.execute('select ' + name.format(x))",
        "conn.execute('select %s' % name)",
        "conn.execute(text.encode())",
    ],
    "git": ["subprocess.run(['git', 'log'])", "subprocess.Popen(('/usr/bin/git', x))"],
    "by name": [
        "os.scandir(place)",
        "root.rglob('*')",
        "(begun.cwd / name).read_text()",
        "(job.workspace / 'a').open()",
    ],
}
FINE = (
    "subprocess.run(x, shell=False)",
    "try:\n    f()\nexcept OSError:\n    pass",
    "conn.execute(f'select {COLUMNS} from jobs', [x])",
    "conn.execute(sql.SQL('select {}').format(x))",
    "subprocess.run(['true'])",
    "(own / name).read_text()",
    "os.scandir(ours)  # by name: it is ours",
)
MODULE = "worker/session/made_up.py"


@pytest.mark.parametrize(
    ("rule", "text"), [(r, t) for r, texts in BROKEN.items() for t in texts]
)
def test_what_breaks_a_rule_is_named(rule: str, text: str):
    assert [line.split(": ")[1] for line in rules.broken(text, MODULE)] == [rule]


@pytest.mark.parametrize("text", FINE)
def test_what_is_fine_is_passed_over(text: str):
    assert rules.broken(text, MODULE) == []


def told(**package: object) -> str:
    return json.dumps({"dependencies": [{"name": "x", "version": "1", **package}]})


def test_packages_that_nobody_could_be_asked_about_do_not_pass_for_safe():
    """pip-audit ends with 0 then, and says that no vulnerability is known."""
    for said in ("", "no json", "{}", '{"dependencies": []}', told(skip_reason="not found")):
        found = audit.vulnerabilities(said)
        assert (found.code, found.lines[0][:13]) == (audit.UNASKED, "could not ask")
    assert audit.vulnerabilities(told(vulns=[])).code == 0
    found = audit.vulnerabilities(told(vulns=[{"id": "CVE-1", "fix_versions": ["2"]}]))
    assert (found.code, found.lines[1]) == (audit.WRONG, "x 1: CVE-1, mended in 2")


def test_every_package_of_production_has_a_licence_that_is_on_the_list():
    found = audit.licences((ROOT / audit.LOCK).read_text())
    assert found.code == 0, found.lines


def test_a_licence_that_is_not_on_the_list_is_named():
    assert audit.allowed("Apache-2.0 OR GPL-3.0-only")
    assert not audit.allowed("MIT AND GPL-3.0-only")
    found = audit.licences("psycopg==3\npytest-randomly==1\nno-such-package==1\n")
    assert (found.code, found.lines[0]) == (0, "those of 2 packages are on the list")
