"""Draws docs/pictures/box.svg: what an agent reaches from its box, and what it does not.

    python docs/pictures/box.py

Colours follow the reader's light or dark theme; tests/unit/test_docs.py compares the file.
"""

from pathlib import Path

WIDTH, HEIGHT = 920, 330
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328; }
    .small { font-size: 11px; fill: #59636e; }
    .name { font-weight: 600; }
    .host { fill: none; stroke: #8094a8; stroke-dasharray: 5 4; }
    .wall { fill: #eef3f8; stroke: #2f6f9f; stroke-width: 2.5; }
    .part { fill: #ffffff; stroke: #8094a8; }
    .closed { fill: none; stroke: #b3563a; stroke-width: 1.5; stroke-dasharray: 4 3; }
    .line { fill: none; stroke: #59636e; stroke-width: 1.5; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .small { fill: #9da7b1; }
      .wall { fill: #1b2733; stroke: #6cb6e8; }
      .part { fill: #0d1117; stroke: #5b7186; }
      .closed { stroke: #e8906c; }
      .line { stroke: #9da7b1; }
    }"""

# Each part: left, top, width, height, its name, and what is said below it.
INSIDE = [
    (170, 60, 130, 52, "CLI and its tools", "no capability, filter"),
    (170, 136, 130, 52, "workspace", "writable if it works"),
    (170, 212, 130, 52, "the turn's own", "HOME, /tmp"),
    (330, 212, 150, 52, "system, by a list", "read-only"),
    (330, 60, 150, 52, "bridge", "loopback, nothing else"),
]
OUTSIDE = [
    (20, 60, 110, 52, "keeper", "ends the agent"),
    (550, 60, 150, 52, "egress proxy", "token in, key out"),
    (760, 30, 140, 52, "the model", "with the key"),
    (760, 100, 140, 52, "listed hosts", "BATON_EGRESS, judged"),
]
SHUT = [
    (550, 170, 165, 44, "other projects", "homes, secrets, /run"),
    (735, 170, 165, 44, "Postgres, Redis", "every port of the host"),
    (550, 236, 165, 44, "other processes", "their memory, signals"),
    (735, 236, 165, 44, "any other host", "any name, metadata"),
]
ARROWS = [(130, 86, 170, 86), (300, 86, 330, 86), (480, 86, 550, 86), (235, 112, 235, 136),
          (700, 76, 760, 58), (700, 96, 760, 122)]  # fmt: skip


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    """Words around, or from a place."""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{words}</text>'


def part(kind: str, x: int, y: int, width: int, height: int, name: str, more: str) -> list[str]:
    """A rectangle with its name and a line below that."""
    return [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" class="{kind}"/>',
        text(x + width / 2, y + height / 2 - 2, name, "name"),
        text(x + width / 2, y + height / 2 + 15, more, "small"),
    ]


def picture() -> str:
    """The whole file."""
    drawn = [
        f'<rect x="8" y="8" width="704" height="{HEIGHT - 40}" rx="10" class="host"/>',
        text(20, 28, "the host", "small", "start"),
        '<rect x="152" y="30" width="344" height="250" rx="10" class="wall"/>',
        text(164, 49, "the box: namespaces of its own, an empty root", "small", "start"),
        *(line for each in INSIDE for line in part("part", *each)),
        *(line for each in OUTSIDE for line in part("part", *each)),
        *(line for each in SHUT for line in part("closed", *each)),
        *(f'<path class="line" marker-end="url(#point)" d="M{a} {b} L{c} {d}"/>'
          for a, b, c, d in ARROWS),
        text(14, HEIGHT - 10, "solid: what an agent reaches; dashed and red: what it does not",
             "small", "start"),
    ]  # fmt: skip
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            "  <title>What an agent reaches from its box, and what it does not</title>",
            f"  <style>{STYLE}\n  </style>",
            '  <defs><marker id="point" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
            ' markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#7a8794"/>'
            "</marker></defs>",
            *(f"  {line}" for line in drawn),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_name("box.svg").write_text(picture())
