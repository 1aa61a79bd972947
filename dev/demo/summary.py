"""The end of the demo: the session chain as a tree, and what resuming was good for."""

from pathlib import Path
from typing import Any

from psycopg import Connection
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from db.jobs import checks
from dev.demo.findings import transitions

# What the provider charges for a token, as multiples of an input token's price.
READ, WRITE, OUTPUT = 0.1, 1.25, 5.0


def summary(console: Console, conn: Connection, project: str, site: Path) -> None:
    """Print the files, the tree and the figures."""
    moves = transitions(conn, project)
    proved = checks.of_sessions(conn, project)
    console.print()
    console.print(_tree(project, moves, proved))
    console.print(
        "tokens: new + from the prompt cache → written; ✗ and ✓: how a check of it ended",
        style="dim",
    )
    console.print()
    for line in _figures(moves):
        console.print(line, markup=False)
    console.print(f"Open {(site / 'index.html').as_uri()}", markup=False, soft_wrap=True)


def _tree(project: str, moves: list[dict[str, Any]], proved: dict[str, list[Any]]) -> Tree:
    """A branch for each version, and on it the moves of the head in their order."""
    tree = Tree(Text.assemble(("session chain of ", "dim"), (project, "bold")))
    branch, version = tree, None
    for move in moves:
        if move["version_id"] is None:
            branch, version = tree, None
        elif move["version_id"] != version:
            version = move["version_id"]
            branch = tree.add(Text(f"version {version}", style="bold"))
        branch.add(_move(move, proved.get(move["new_session_id"], [])))
    return tree


def _move(move: dict[str, Any], proved: list[dict[str, Any]]) -> Text:
    passed = all(one["outcome"] == "passed" for one in proved)
    old = (move["old_session_id"] or "—")[:8]
    return Text.assemble(
        (f"{move['source']:<9} ", "cyan"),
        (f"{old:>8} → ", "dim"),
        (move["new_session_id"][:8], "green"),
        f" {_tokens(move):<22} ${move['cost_usd']:.3f} {(move['duration_ms'] or 0) / 1000:4.1f}s",
        (f"  {move['reason']}" if move["reason"] else "", "yellow"),
        (f"  {'✓' if passed else '✗'} check" if proved else "", "green" if passed else "red"),
    )


def _tokens(move: dict[str, Any]) -> str:
    """What the turn read (new and from the cache) and wrote; the CLI tells neither of a
    compaction, but what it made of the context."""
    if move["source"] == "compact":
        return f"{_k(move['parent_tokens'])} → {_k(move['context_tokens'])} of context"
    new = move["input_tokens"] + move["cache_creation_tokens"]
    read, wrote = _k(move["cache_read_tokens"]), _k(move["output_tokens"])
    return f"{_k(new)} + {read} cached → {wrote}"


def _k(tokens: int | None) -> str:
    return f"{(tokens or 0) / 1000:.1f}k"


def _figures(moves: list[dict[str, Any]]) -> list[str]:
    later = moves[1:]
    resumed = [move for move in later if move["resumed"]]
    cached = sum(move["cache_read_tokens"] for move in resumed)
    sent = cached + sum(m["input_tokens"] + m["cache_creation_tokens"] for m in resumed)
    cost = sum(move["cost_usd"] for move in moves)
    saved = sum(_saved(move) for move in resumed)
    lines = [
        f"Resumed {len(resumed)} of {len(later)} turns that had a session to resume.",
        f"The whole chain cost {cost:.4f} USD.",
    ]
    if sent:
        lines.append(
            f"{cached} of the {sent} input tokens of resumed turns came from the prompt cache"
            f" ({cached / sent:.0%}); read anew they would have cost about {saved:.4f} USD more"
            " (estimated from the turns' own costs)."
        )
    return lines


def _saved(move: dict[str, Any]) -> float:
    """What the cached tokens would have cost more as new ones (USD)."""
    weight = (
        move["input_tokens"]
        + WRITE * move["cache_creation_tokens"]
        + READ * move["cache_read_tokens"]
        + OUTPUT * move["output_tokens"]
    )
    price = move["cost_usd"] / weight if weight else 0.0
    return (1 - READ) * move["cache_read_tokens"] * price
