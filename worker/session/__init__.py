"""Which session a job goes on from, and what a fresh one is told of the past.

`ladder` looks at the candidates, `cheapest` weighs them, `digest` and `prompts` write what a fresh
one is told, `recovery` finds what a dead attempt left, `recordings` takes sessions in from disk.
"""
