"""A check of what a turn has made: a command in a box of its own, and what it came to.

`output` keeps a bounded part of what a command prints, `command` runs one. When checks are run,
and what is done about one that failed: worker/job/proof.py.
"""
