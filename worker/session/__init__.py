"""Which session a job goes on from, and what a fresh one is told of the past.

`ladder` looks at the candidates, `weighing` and `cheapest` weigh them, `digest`, `notes` and
`prompts` write what an agent is told, `recovery` finds what a dead attempt left, `recordings`
takes sessions in from disk.
"""
