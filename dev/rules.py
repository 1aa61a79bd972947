"""Rules of our own that `make check` holds, beside ruff's, bandit's and pyright's.

`python -m dev.rules config db worker …` prints what breaks one and ends with 1. A line that is
meant says why: `# by name: the repository is ours`, with the rule's name first.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

STARTS = {"run", "Popen", "call", "check_call", "check_output", "create_subprocess_exec"}
GIT = "worker/workspace/git.py"  # which knows whose configuration counts
HANDS = "worker/workspace/beneath.py"
AT_WORKSPACES = ("worker/workspace/", "worker/session/", "worker/job/", "tasks/")
WALKS = {"scandir", "walk", "fwalk", "listdir", "rglob", "copytree", "copytree2"}
BY_NAME = {"read_text", "read_bytes", "write_text", "write_bytes", "open", "chmod", "touch"}
WORKSPACE = {"cwd", "workspace", "place"}  # what a workspace's path is called
WHY = {
    "shell": "start programs without a shell",
    "swallowed": "name the errors that may be passed over",
    "query": "a query is a literal with parameters, of constants at most",
    "git": f"start git through {GIT}",
    "by name": f"go into a workspace through {HANDS}",
}


def main(places: list[str]) -> int:
    """Look at every module below these places."""
    files = sorted(file for place in places for file in Path(place).rglob("*.py"))
    said = [line for file in files for line in broken(file.read_text(), str(file))]
    sys.stdout.writelines(f"{line}\n" for line in said)
    return 1 if said else 0


def broken(text: str, file: str) -> list[str]:
    """What in a module breaks a rule, as lines for people."""
    lines = text.splitlines()
    found = sorted(set(_found(ast.parse(text), file)))
    return [
        f"{file}:{number}: {rule}: {WHY[rule]}"
        for number, end, rule in found
        if f"# {rule}: " not in "\n".join(lines[number - 1 : end])
    ]


def _found(tree: ast.Module, file: str) -> Iterator[tuple[int, int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.ExceptHandler() if _broad(node.type) and all(map(_nothing, node.body)):
                yield node.lineno, node.end_lineno or node.lineno, "swallowed"
            case ast.Call():
                for rule in _calls(node, file):
                    yield node.lineno, node.end_lineno or node.lineno, rule
            case _:
                pass


def _calls(call: ast.Call, file: str) -> Iterator[str]:
    name, first = _name(call.func), call.args[0] if call.args else None
    if name in {"system", "popen", "getoutput"} or any(
        each.arg == "shell" and not _is(each.value, False) for each in call.keywords
    ):
        yield "shell"
    if name == "suppress" and any(_broad(each) for each in call.args):
        yield "swallowed"
    if name in {"execute", "executemany"} and first is not None and _made(first):
        yield "query"
    if name in STARTS and file != GIT and first is not None and _first_word(first) == "git":
        yield "git"
    if file != HANDS and file.startswith(AT_WORKSPACES) and _by_name(call):
        yield "by name"


def _by_name(call: ast.Call) -> bool:
    """Whether it goes through directories by path, or opens what lies in a workspace so."""
    if not isinstance(call.func, ast.Attribute):
        return _name(call.func) == "open"
    name = call.func.attr
    below = isinstance(call.func.value, ast.BinOp)
    names = {_name(each) for each in ast.walk(call.func.value)}
    return name in WALKS or (name in BY_NAME and below and bool(names & WORKSPACE))


def _made(query: ast.expr) -> bool:
    """Whether a query is put together of more than literals and constants."""
    match query:
        case ast.JoinedStr():
            values = [
                part.value for part in query.values if isinstance(part, ast.FormattedValue)
            ]
            return not all(_name(value).isupper() for value in values)
        case ast.BinOp(left=left, right=right, op=op):
            return isinstance(op, ast.Mod) or _made(left) or _made(right)
        case ast.Call(func=ast.Attribute(value=ast.Call(func=made))) if _name(made) == "SQL":
            return False  # psycopg's own, which quotes
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in {"encode", "format", "join", "replace"}
        case _:
            return False


def _broad(kind: ast.expr | None) -> bool:
    return kind is None or _name(kind) in {"Exception", "BaseException"}


def _nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass | ast.Continue) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _first_word(command: ast.expr) -> str:
    """The program of a command, as far as it stands there."""
    if isinstance(command, ast.List | ast.Tuple) and command.elts:
        return _first_word(command.elts[0])
    if isinstance(command, ast.Constant) and isinstance(command.value, str):
        return command.value.partition(" ")[0].rpartition("/")[2]
    return ""


def _is(value: ast.expr, what: object) -> bool:
    return isinstance(value, ast.Constant) and value.value is what


def _name(node: ast.AST) -> str:
    """The last name of an expression: `c` of `a.b.c`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
