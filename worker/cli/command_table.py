"""Every command, where it is, and what `baton --help` says of it.

Only the module of the command that was asked for is imported, and what that needs: so the
first line takes less than 0.3 s of a core (docs/performance.md; tests/integration/test_cli_start.py counts
modules).
"""

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command_from_info

COMMANDS = {
    "migrate": ("setup", "Bring the database up to date."),
    "env": ("setup", "Print the addresses in effect, as NAME=value lines."),
    "redis-acl": ("setup", "Print rules for Redis' users, as lines of its ACL file."),
    "enqueue": ("enqueue", "Ask for a job."),
    "jobs": ("jobs", "List jobs, what is open first; or show one with all its steps."),
    "cancel": ("acts", "Cancel a job and what follows in its chain."),
    "retry": ("acts", "Ask for a finished job once more."),
    "answer": ("acts", "Tell a job that asked what to do."),
    "projects": ("projects", "List projects."),
    "project": (
        "project",
        "Show a project, set its session or check right, or make it of files.",
    ),
    "chain": ("project", "Show every move of a project's session, oldest first."),
    "branches": ("branches", "Show the branches of a project, oldest first; or drop one."),
    "promote": ("branches", "Make a branch's session and files the project's."),
    "diff": ("files", "Print what a version changed, as a git patch."),
    "session": ("sessions", "Show a session, and whether it can be resumed."),
    "import-session": (
        "sessions",
        "Take in a session that the agent CLI recorded without Baton.",
    ),
    "delete": ("deletion", "Delete all there is of a project or a user, for good."),
    "key": ("live", "Make an API key, list keys, or revoke one."),
    "credit": ("credit", "Show what voice may use of an account's tokens, or give it more."),
    "open": ("live", "Print the address of a project's page."),
    "live": ("live", "List who is connected to a gateway, or was lately."),
    "webhooks": ("webhooks", "List webhooks that were not delivered, the newest first."),
    "report": ("reports", "Report on sync, resuming, cost, checks or health."),
    "doctor": ("reports", "Check everything that jobs need, a line each."),
}


class Commands(TyperGroup):
    """The commands of the table, and those that others have added."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, imported now; None if there is none."""
        del ctx
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            module = import_module(f"worker.cli.{COMMANDS[cmd_name][0]}")
            info = next(one for one in module.app.registered_commands if one.name == cmd_name)
            self.commands[cmd_name] = get_command_from_info(
                info, pretty_exceptions_short=False, rich_markup_mode=None
            )
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer, which looks for a name like the one given among those imported."""
        if args[0] not in (names := self.list_commands(ctx)) and not args[0].startswith("-"):
            near = ", ".join(f"'{one}'" for one in get_close_matches(args[0], names))
            ctx.fail(
                f"No such command '{args[0]}'." + (f" Did you mean {near}?" if near else "")
            )
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the table."""
        del ctx
        return [*COMMANDS, *(name for name in self.commands if name not in COMMANDS)]

    def told(self, name: str) -> str:
        """What is said of a command in a line."""
        if name in COMMANDS:
            return COMMANDS[name][1]
        return self.commands[name].get_short_help_str(100)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands in `--help`, with nothing imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.told(name)) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """The commands that begin so, and the options."""
        from typer._click.shell_completion import (
            CompletionItem,
        )  # there is no other name for it

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = super(TyperGroup, self).shell_complete(ctx, incomplete)
        return [*(CompletionItem(name, help=self.told(name)) for name in names), *options]
