"""`python -m dev.bench.plots`: the study's rows as pictures for docs/cost.md, one for each gap.

.baton/study.jsonl ──► docs/pictures/study-<gap>.svg     USD so far, by update and policy
"""

import json
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 260, 56, 36, 28
COLOURS = {
    "fresh": "#888888",
    "resume": "#1f77b4",
    "resume+compact": "#d08000",
    "ours": "#2a8f3c",
    "cheapest": "#b03060",
}
DASHES = {
    "fresh": "6 3",
    "resume": "2 2",
    "resume+compact": "8 2 2 2",
    "ours": "",
    "cheapest": "",
}
FONT = 'font-family="sans-serif" font-size="11"'

Row = dict[str, Any]
Lines = dict[str, list[float]]


def main(rows_file: Path, pictures: Path) -> int:
    """Draw one picture for each gap that there are rows of."""
    rows: list[Row] = [json.loads(line) for line in rows_file.read_text().splitlines()]
    for gap in dict.fromkeys(row["gap"] for row in rows):
        of_gap = [row for row in rows if row["gap"] == gap and row["update"]]
        lines = {policy: _sums(of_gap, policy) for policy in COLOURS}
        file = pictures / f"study-{gap}.svg"
        file.write_text(_picture(gap, {name: line for name, line in lines.items() if line}))
    return 0


def _sums(rows: list[Row], policy: str) -> list[float]:
    of = sorted((r for r in rows if r["policy"] == policy), key=lambda row: row["update"])
    return list(accumulate(row["usd"] for row in of))


def _picture(gap: str, lines: Lines) -> str:
    updates = max(map(len, lines.values()))
    most = max(max(line) for line in lines.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>USD so far, by update, {gap} apart (simulated)</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 16, f"USD so far, updates {gap} apart (simulated, list prices)"),
        *_axes(updates, most),
    ]
    for number, (name, line) in enumerate(lines.items()):
        points = " ".join(
            f"{_x(i, updates):.1f},{_y(v, most):.1f}" for i, v in enumerate(line, 1)
        )
        style = f'stroke="{COLOURS[name]}" stroke-width="2" stroke-dasharray="{DASHES[name]}"'
        parts.append(f'<polyline points="{points}" fill="none" {style}/>')
        at = TOP + 14 + 15 * number
        parts.append(
            f'<line x1="{LEFT + 10}" y1="{at - 4}" x2="{LEFT + 34}" y2="{at - 4}" {style}/>'
        )
        parts.append(_text(LEFT + 40, at, f"{name}: {line[-1]:.2f}"))
    return "\n".join([*parts, "</svg>", ""])


def _axes(updates: int, most: float) -> list[str]:
    floor, right = HEIGHT - BOTTOM, WIDTH - 16
    parts = [
        f'<path d="M{LEFT} {TOP} V{floor} H{right}" fill="none" stroke="black"/>',
        _text(right - 50, HEIGHT - 6, "update"),
    ]
    parts += [_text(_x(i, updates) - 3, floor + 15, str(i)) for i in range(1, updates + 1)]
    return parts + [
        _text(8, _y(most * part, most) + 4, f"{most * part:.2f}") for part in (0, 0.5, 1)
    ]


def _x(update: int, updates: int) -> float:
    return LEFT + (WIDTH - LEFT - 30) * update / max(updates, 1)


def _y(usd: float, most: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * usd / (most or 1)


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {FONT}>{text}</text>'


if __name__ == "__main__":
    checkout = Path(__file__).parents[2]
    sys.exit(main(checkout / ".baton" / "study.jsonl", checkout / "docs" / "pictures"))
