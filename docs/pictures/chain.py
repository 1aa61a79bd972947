"""Draws docs/pictures/chain.svg: two requests a week apart, their jobs, and the chain of sessions.

    python docs/pictures/chain.py

Colours follow the reader's light or dark theme; tests/unit/test_docs.py compares the file.
"""

from itertools import pairwise
from pathlib import Path

WIDTH, HEIGHT = 920, 372
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328; }
    .small { font-size: 11px; fill: #59636e; }
    .name { font-weight: 600; }
    .box { fill: #eef3f8; stroke: #8094a8; }
    .session { fill: #ffffff; stroke: #2f6f9f; stroke-width: 2; }
    .head { fill: #2f6f9f; stroke: #2f6f9f; stroke-width: 2; }
    .lost { fill: none; stroke: #b3563a; stroke-width: 2; stroke-dasharray: 4 3; }
    .line { fill: none; stroke: #59636e; stroke-width: 1.5; }
    .week { stroke: #8094a8; stroke-dasharray: 2 5; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .small { fill: #9da7b1; }
      .box { fill: #1b2733; stroke: #5b7186; }
      .session { fill: #0d1117; stroke: #6cb6e8; }
      .head { fill: #6cb6e8; stroke: #6cb6e8; }
      .lost { stroke: #e8906c; }
      .line { stroke: #9da7b1; }
    }"""

ASKED, JOBS, SESSIONS, LOST = 52, 138, 232, 306  # the rows' middles
# Each job: its name, its left edge, and where its turns stand.
FIRST = [("build", 110, [155]), ("metadata", 220, [247, 303]), ("compaction", 350, [395])]
SECOND = [("update", 552, [597]), ("metadata", 662, [689, 745]), ("compaction", 792, [837])]


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    """Words around, from or up to a place."""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{words}</text>'


def arrow(x1: float, y1: float, x2: float, y2: float, kind: str = "line") -> str:
    """A line with a point at its end."""
    return f'<path class="{kind}" d="M{x1} {y1} L{x2} {y2}" marker-end="url(#point)"/>'


def circle(x: float, y: float, kind: str) -> str:
    """A session."""
    return f'<circle cx="{x}" cy="{y}" r="11" class="{kind}"/>'


def request(x: float, words: str, when: str) -> list[str]:
    """What somebody asked, and when."""
    return [
        f'<rect x="{x}" y="{ASKED - 24}" width="330" height="40" rx="20" class="box"/>',
        text(x + 165, ASKED + 1, f"“{words}”", "name"),
        text(x + 165, ASKED - 32, when, "small"),
        arrow(x + 45, ASKED + 18, x + 45, JOBS - 22),
    ]


def jobs(chain: list[tuple[str, int, list[int]]]) -> list[str]:
    """The jobs of a chain, each with a line down to every session that it made."""
    drawn: list[str] = []
    for name, x, turns in chain:
        drawn += [
            f'<rect x="{x}" y="{JOBS - 18}" width="90" height="36" rx="5" class="box"/>',
            text(x + 45, JOBS + 5, name),
            *(arrow(turn, JOBS + 18, turn, SESSIONS - 15) for turn in turns),
        ]
    for (_, x, _), (_, following, _) in pairwise(chain):
        drawn.append(arrow(x + 90, JOBS, following - 4, JOBS))
    return drawn


def sessions() -> list[str]:
    """Every session is a fork of the one before; the last is the head."""
    places = [turn for _, _, turns in FIRST + SECOND for turn in turns]
    drawn = [arrow(a + 12, SESSIONS, b - 16, SESSIONS) for a, b in pairwise(places)]
    drawn += [circle(place, SESSIONS, "session") for place in places[:-1]]
    drawn += [circle(places[-1], SESSIONS, "head"), text(837, SESSIONS + 30, "head", "name")]
    return drawn


def lost_turn() -> list[str]:
    """A turn that failed is a fork that nothing names: its parent is as it was."""
    return [
        arrow(404, SESSIONS + 9, 484, LOST - 6, "lost"),
        circle(496, LOST, "lost"),
        text(516, LOST - 2, "a turn that failed: a fork that nothing names.", anchor="start"),
        text(
            516, LOST + 15, "Its parent is as it was; the retry forks it again.", anchor="start"
        ),
    ]


def picture() -> str:
    """The whole file."""
    drawn = [
        text(14, ASKED + 1, "you ask", "small", "start"),
        text(14, JOBS + 5, "jobs", "small", "start"),
        text(14, SESSIONS + 5, "sessions", "small", "start"),
        *request(110, "A page for a flower shop", "Monday, worker A"),
        *request(552, "Make the header blue", "a week later, worker B"),
        f'<path class="week" d="M496 20 V{LOST - 22}"/>',
        *jobs(FIRST),
        *jobs(SECOND),
        *sessions(),
        *lost_turn(),
        text(
            14,
            HEIGHT - 12,
            "each session is a fork of the one before it, and knows all that it knew",
            "small",
            "start",
        ),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            "  <title>Two requests a week apart, their jobs, and one chain of sessions</title>",
            f"  <style>{STYLE}\n  </style>",
            '  <defs><marker id="point" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
            ' markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#7a8794"/>'
            "</marker></defs>",
            *(f"  {line}" for line in drawn),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_name("chain.svg").write_text(picture())
