"""Everything the environment may say, read once and checked before anything starts.

No other module reads the environment. `.env.example` lists every name with its default;
durations are in seconds unless a name says otherwise.
"""

import re
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

STANDIN_KEY = "stand-in"  # what the CLI is given as a key when the model is the stand-in


def _seconds(value: Any) -> Any:
    """`90` and `1.5` are seconds; ISO 8601 (`PT1H`) is read as it is written."""
    try:
        return timedelta(seconds=float(value))
    except (TypeError, ValueError):
        return value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than nothing")
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds), AfterValidator(_positive)]
Absolute = Annotated[Path, AfterValidator(lambda path: Path(path).expanduser().absolute())]


class Settings(BaseSettings):
    """The environment's names are the fields', in capitals, with `BATON_` before them
    except for the four that other programs share."""

    model_config = SettingsConfigDict(
        env_prefix="BATON_", env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True
    )

    database_url: str = Field("", validation_alias="DATABASE_URL")
    redis_url: str = Field("", validation_alias="REDIS_URL")
    anthropic_api_key: SecretStr = Field(SecretStr(""), validation_alias="ANTHROPIC_API_KEY")
    anthropic_base_url: str = Field("", validation_alias="ANTHROPIC_BASE_URL")

    # Where things lie
    workspaces: Absolute = Path(".baton/workspaces")  # root of every workspace
    agent_home: Absolute = Path(".baton/agent")  # the CLI's config directory
    workspace_remote: str = ""  # a git URL with {project} in it; empty: workspaces are shared

    # The agent
    model: str = ""  # empty: the CLI's own default
    metadata_model: str = ""  # empty: as `model` (another model forfeits the prompt cache)
    max_turns: int = Field(200, ge=1)
    budget_usd: float | None = Field(None, gt=0)  # per turn of the agent
    cli_path: str = ""  # empty: the CLI bundled with the SDK
    cli_retries: int = Field(2, ge=0)  # CLAUDE_CODE_MAX_RETRIES
    turn_timeout: Duration = timedelta(minutes=60)
    idle_timeout: Duration = timedelta(minutes=10)  # an agent that says nothing
    max_message_bytes: int = Field(64 * 2**20, ge=2**20)  # one line of the CLI's output
    sandbox: Literal["auto", "off"] = "auto"  # auto: bubblewrap where it is present

    # Resuming
    resume_enabled: bool = True
    resume_percent: int = Field(100, ge=0, le=100)  # the rest of projects is the control sample
    stale_after: Duration = timedelta(hours=24)
    resume_failures: int = Field(2, ge=1)  # then a session is not resumable
    reset_after_turns: int = Field(50, ge=1)  # since the session began or was compacted
    compact: Literal["auto", "always", "never"] = "auto"
    structural_change: float = Field(0.5, gt=0, le=1)  # share of the files that came or went
    cache_ttl: Duration = timedelta(minutes=5)  # the provider's, of a prompt
    compact_threshold: float = Field(0.6, gt=0, le=1)  # of the context window
    context_window: int = Field(200_000, ge=1000)  # tokens
    digest_chars: int = Field(12_000, ge=500)  # what a fresh session is told of the past

    # Jobs
    attempts: int = Field(5, ge=1)
    backoff_first: Duration = timedelta(seconds=15)  # caps of full jitter: ×4 each time
    rescue_limit: int = Field(3, ge=1)  # workers killed, then quarantined
    lease: Duration = timedelta(seconds=30)
    renew_every: Duration = timedelta(seconds=10)
    cancel_poll: Duration = timedelta(seconds=1)
    drain_grace: Duration = timedelta(seconds=60)
    deaf_after: Duration = timedelta(seconds=60)  # without a message, though some wait
    slots: int = Field(2, ge=1)  # jobs at a time in one worker
    user_slots: int = Field(0, ge=0)  # jobs of one user at a time, on all workers; 0: no limit
    prompt_limit: int = Field(200_000, ge=1)  # bytes
    plain_celery: bool = True  # off: messages that are not ours are refused

    # The relay
    relay_poll: Duration = timedelta(milliseconds=100)
    publish_after: Duration = timedelta(seconds=2)
    publish_again_max: Duration = timedelta(minutes=5)
    worker_silent_after: Duration = timedelta(seconds=60)

    # Clean-up
    checkpoint_ttl: Duration = timedelta(hours=1)
    events_ttl: Duration = timedelta(hours=24)  # of the Redis copy
    events_kept: int = Field(1000, ge=1)  # in the Redis copy of one project
    archive_after: Duration = timedelta(days=30)
    jobs_kept: Duration = timedelta(days=30)  # and what had to make way in workspaces
    branches_kept: Duration = timedelta(days=30)  # that nobody uses any more
    transcripts_kept: Duration = timedelta(days=7)  # that nothing reaches any more
    project_bytes: int = Field(0, ge=0)  # of a project's stored transcripts; 0: no limit
    upkeep_every: Duration = timedelta(minutes=5)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @field_validator("redis_url")
    @classmethod
    def _is_the_broker(cls, value: str) -> str:
        """Ours are databases 0, 1 and 2, so the address may not name another one."""
        if value and not re.fullmatch(r"rediss?://[^/?#]+(/0?)?", value):
            raise ValueError("must be redis://host:port/0, without more")
        return value

    @field_validator("workspace_remote")
    @classmethod
    def _is_for_each_project(cls, value: str) -> str:
        if value and not re.fullmatch(
            r"(file:///|(ssh|https?)://[^/\s]+/)[^{}\s]*\{project\}[^{}\s]*", value
        ):
            raise ValueError(
                "must be a file, ssh or https URL with {project} in its path,"
                " such as ssh://git@host/{project}.git"
            )
        return value

    def missing(self) -> str | None:
        """The name of an address that a worker cannot do without, if one is not set."""
        return next(
            (n for n in ("DATABASE_URL", "REDIS_URL") if not getattr(self, n.lower())), None
        )


class BadSettings(Exception):
    """The environment says something that cannot be; the text names it."""


@cache
def settings() -> Settings:
    """The settings of this process. Raises BadSettings with a sentence for people."""
    try:
        return Settings()  # pyright: ignore[reportCallIssue]  # fields come from the environment
    except ValidationError as exc:
        first = exc.errors()[0]
        name = str(first["loc"][0])
        name = name if name.isupper() else f"BATON_{name.upper()}"
        raise BadSettings(f"{name} is not usable: {first['msg'].lower()}.") from exc
