"""The command line: a module for each noun, imported when one of its commands is asked for.

`app` takes further commands (those that run Baton here), `main` runs one.
"""

from worker.cli.console import app, main

__all__ = ["app", "main"]
