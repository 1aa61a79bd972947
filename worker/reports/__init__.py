"""Documents: what operators are told, as data.

Each is made from the ledger and knows no terminal: no typer, no rich (import-linter holds
that). `worker/cli/pages` lays them out for people; `--json` and other services take them as they are.
"""
