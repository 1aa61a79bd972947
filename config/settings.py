"""Everything the environment may say, read once and checked before anything starts.

No other module reads the environment. `.env.example` lists every name with its default and its
range; durations are in seconds unless a name says otherwise. Each value is checked by itself
(`values.py`), then what they are to each other (`rules.py`); `reading.py` says what is wrong, and
`start.py` is where a process does that first.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from config import redis
from config.reading import PREFIX as PREFIX
from config.reading import BadSettings as BadSettings
from config.reading import Span, name_in, span_in
from config.reading import number as number
from config.reading import read as read
from config.redis import Way
from config.values import (
    ApiKey,
    ApiUrl,
    BrokerUrl,
    Certificates,
    Directory,
    Duration,
    EgressHosts,
    FlowerUrl,
    GitUrl,
    Hosts,
    Networks,
    Places,
    PostgresUrl,
    Prices,
    RealtimeUrl,
    SigningSecrets,
    listed,
)

ANTHROPIC = "https://api.anthropic.com"
STANDIN_KEY = "stand-in"  # what the CLI is given as a key when the model is the stand-in
NO_SECRET = SecretStr("")


SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=s) for s in (1, 60, 3600, 86400))
EVER = 3650 * DAY  # as long as anybody keeps anything
MIB, GIB = 2**20, 2**30


def _lasts(default: timedelta, least: timedelta, most: timedelta) -> Any:
    """A duration and its range."""
    return Field(default, ge=least, le=most)


def _follows(
    default: Callable[[dict[str, Any]], timedelta | int], least: Any, most: Any
) -> Any:
    """A value that goes by others, which stand above it, unless it is set."""
    return Field(default_factory=default, ge=least, le=most)


class Asking(BaseSettings):
    """What a producer needs, and all that may refuse one.

    The environment's names are the fields', in capitals, with `BATON_` before them
    except for the four that other programs share.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        str_strip_whitespace=True,
    )

    database_url: PostgresUrl = Field(NO_SECRET, validation_alias="DATABASE_URL")
    workspaces: Directory = Path(".baton/workspaces")  # root of every workspace
    # A git URL with {project} in it; empty: workspaces are shared
    workspace_remote: GitUrl = NO_SECRET
    prompt_limit: int = Field(200_000, ge=1, le=10_000_000)  # bytes


class Settings(Asking):
    """All of them, with the range of each."""

    redis_url: BrokerUrl = Field(NO_SECRET, validation_alias="REDIS_URL")
    plain_broker_url: BrokerUrl = NO_SECRET  # told plain producers; empty: redis_url
    redis_ca: Certificates = ""  # a file of those that sign Redis's; empty: the system's
    anthropic_api_key: ApiKey = Field(NO_SECRET, validation_alias="ANTHROPIC_API_KEY")
    anthropic_auth_token: ApiKey = Field(NO_SECRET, validation_alias="ANTHROPIC_AUTH_TOKEN")
    anthropic_base_url: ApiUrl = Field("", validation_alias="ANTHROPIC_BASE_URL")
    agent_home: Directory = Path(".baton/agent")  # the CLI's config directory

    # The agent
    model: str = ""  # empty: the CLI's own default
    metadata_model: str = ""  # empty: as `model` (another model forfeits the prompt cache)
    subagents: bool = True  # whether agents may begin agents of their own
    max_turns: int = Field(200, ge=1, le=100_000)
    budget_usd: float | None = Field(None, ge=0.01, le=1_000_000)  # per turn of the agent
    # What all turns of a job may cost, and how many they may be; of a project, a user and the
    # whole fleet in a day that begins at 00:00 UTC (worker/job/budgets.py)
    budget_job_usd: float | None = Field(None, ge=0.01, le=1_000_000)
    budget_job_turns: int | None = Field(None, ge=1, le=1_000_000)
    budget_project_usd: float | None = Field(None, ge=0.01, le=1_000_000)
    budget_project_turns: int | None = Field(None, ge=1, le=1_000_000)
    budget_user_usd: float | None = Field(None, ge=0.01, le=1_000_000)
    budget_user_turns: int | None = Field(None, ge=1, le=1_000_000)
    budget_account_usd: float | None = Field(None, ge=0.01, le=1_000_000)
    budget_account_turns: int | None = Field(None, ge=1, le=1_000_000)
    budget_day_usd: float | None = Field(None, ge=0.01, le=1_000_000)
    budget_day_turns: int | None = Field(None, ge=1, le=1_000_000)
    cli_path: str = ""  # empty: the CLI bundled with the SDK
    cli_retries: int = Field(2, ge=0, le=10)  # CLAUDE_CODE_MAX_RETRIES
    turn_timeout: Duration = _lasts(HOUR, SECOND / 10, 7 * DAY)
    idle_timeout: Duration = _follows(  # an agent that says nothing
        lambda given: min(10 * MINUTE, given["turn_timeout"]), SECOND / 10, 7 * DAY
    )
    max_message_bytes: int = Field(64 * MIB, ge=MIB, le=1024 * MIB)  # one line of the CLI's
    sandbox: Literal["strict", "auto", "off"] = "auto"  # worker/sandbox/box.py has MODES
    agent_uid: int = Field(61_000, ge=1, le=2**32 - 2)  # in the box, where the worker is root
    box_read: Places = ""  # what more of the host agents may read: absolute paths, with colons
    box_tmp: int = Field(GIB, ge=MIB, le=1024 * GIB)  # bytes of /tmp, HOME, /dev/shm in the box
    # What a turn may use of its host, boxed or not
    limit_memory: int = Field(8 * GIB, ge=GIB // 4, le=1024 * GIB)  # bytes, all of it together
    limit_processes: int = Field(2000, ge=64, le=1_000_000)  # and threads, at a time
    limit_file: int = Field(10 * GIB, ge=64 * MIB, le=1024 * GIB)  # bytes of one file
    limit_open_files: int = Field(16_384, ge=256, le=1_048_576)  # of one process
    limit_cpu: Duration = _follows(  # of one process
        lambda given: max(MINUTE, 4 * given["turn_timeout"]), SECOND, 28 * DAY
    )
    workspace_bytes: int = Field(10 * GIB, ge=0, le=10**18)  # that it may hold; 0: no limit
    workspace_files: int = Field(500_000, ge=0, le=10**9)  # and directories; 0: no limit
    # A check of what a turn has made (docs/checks.md)
    check: str = ""  # a shell line for every build that names none; empty: no check
    check_seconds: Duration = _follows(
        lambda given: min(10 * MINUTE, given["turn_timeout"]), SECOND / 10, DAY
    )
    check_memory: int = Field(4 * GIB, ge=GIB // 16, le=1024 * GIB)  # bytes, all of it together
    check_output: int = Field(16_000, ge=1000, le=1_000_000)  # bytes kept of what it prints
    check_tries: int = Field(2, ge=0, le=10)  # repairs after a check that failed
    on_check_failed: Literal["keep", "rewind", "ask"] = "keep"
    race_seconds: Duration = _lasts(30 * MINUTE, SECOND, DAY)  # for those that pass
    egress: EgressHosts = (
        ""  # hosts that agents may reach beside the model: host[:port], commas
    )
    egress_home: Directory = Path(".baton/egress")  # where the egress proxy has its socket

    # Resuming
    resume_enabled: bool = True
    resume_percent: int = Field(100, ge=0, le=100)  # the rest of projects is the control sample
    stale_after: Duration = _lasts(DAY, SECOND, EVER)
    resume_failures: int = Field(2, ge=1, le=1_000_000)  # then a session is not resumable
    reset_after_turns: int = Field(50, ge=1, le=1_000_000)  # since it began or was compacted
    compact: Literal["auto", "always", "never"] = "auto"
    long_sessions: Literal["keep", "cheapest"] = "keep"  # cheapest: left where that costs less
    structural_change: float = Field(0.5, ge=0.01, le=1)  # share of files that came or went
    cache_ttl: Duration = _lasts(5 * MINUTE, SECOND, DAY)  # the provider's, of a prompt
    prompt_cache: Literal["auto", "5m", "1h"] = "auto"  # how long prompts are kept there
    prices: Prices = ""  # of models: family=USD for a million tokens of input, by commas
    compact_threshold: float = Field(0.6, ge=0.05, le=1)  # of the context window
    context_window: int = Field(200_000, ge=1000, le=10_000_000)  # tokens
    digest_chars: int = _follows(  # what a fresh session is told of the past
        lambda given: min(12_000, 2 * given["context_window"]), 500, 10_000_000
    )

    # Jobs
    attempts: int = Field(5, ge=1, le=1_000_000)
    backoff_first: Duration = _lasts(15 * SECOND, SECOND / 100, HOUR)  # ×4 each time, up to
    backoff_max: Duration = _lasts(HOUR, SECOND, 7 * DAY)
    rescue_limit: int = Field(3, ge=1, le=1_000_000)  # workers killed, then quarantined
    lease: Duration = _lasts(30 * SECOND, SECOND, HOUR)
    renew_every: Duration = _follows(lambda given: given["lease"] / 3, SECOND / 20, 20 * MINUTE)
    cancel_poll: Duration = _follows(
        lambda given: min(SECOND, given["lease"] / 10), SECOND / 20, MINUTE
    )
    drain_grace: Duration = _lasts(MINUTE, timedelta(0), DAY)
    deaf_after: Duration = _lasts(
        MINUTE, 3 * SECOND, DAY
    )  # without a message, though some wait
    slots: int = Field(2, ge=1, le=256)  # jobs at a time in one worker
    # jobs of one user at a time, on all workers; 0: no limit
    user_slots: int = Field(0, ge=0, le=10_000)
    # jobs that a user may ask for in a minute, at all doors; 0: no limit
    user_rate: int = Field(0, ge=0, le=1000)
    plain_celery: bool = True  # off: messages that are not ours are refused
    remote_control: bool = True  # off: workers listen to nobody over the broker

    # The relay
    relay_poll: Duration = _lasts(SECOND / 10, SECOND / 100, MINUTE)
    publish_after: Duration = _lasts(2 * SECOND, SECOND / 100, HOUR)
    publish_again_max: Duration = _lasts(5 * MINUTE, SECOND, DAY)
    worker_silent_after: Duration = _lasts(MINUTE, 3 * SECOND, DAY)

    # Clean-up
    checkpoint_ttl: Duration = _lasts(HOUR, SECOND, 30 * DAY)
    events_ttl: Duration = _lasts(DAY, SECOND, 365 * DAY)  # of the Redis copy
    events_kept: int = Field(1000, ge=1, le=1_000_000)  # in the Redis copy of one project
    archive_after: Duration = _lasts(30 * DAY, SECOND, EVER)
    jobs_kept: Duration = _lasts(30 * DAY, SECOND, EVER)  # and what made way in workspaces
    branches_kept: Duration = _lasts(30 * DAY, SECOND, EVER)  # that nobody uses any more
    transcripts_kept: Duration = _lasts(7 * DAY, SECOND, EVER)  # that nothing reaches any more
    project_bytes: int = Field(0, ge=0, le=10**18)  # of its stored transcripts; 0: no limit
    upkeep_every: Duration = _lasts(5 * MINUTE, SECOND, 30 * DAY)

    # The live gateway
    web_host: str = "127.0.0.1"
    web_port: int = Field(8320, ge=1, le=65_535)
    web_url: str = ""  # how it is reached from outside; empty: http://host:port
    web_origins: str = ""  # of pages that may connect, by commas; its own may always
    secret: SecretStr = SecretStr("")  # signs tickets; the same for every gateway

    # Webhooks
    callback_hosts: Hosts = ""  # that may be told, by commas; *.example.com: all below it
    callback_networks: Networks = ""  # private ones that may be reached all the same
    callback_secret: SigningSecrets = NO_SECRET  # empty: made from `secret`

    # Voice
    openai_api_key: ApiKey = Field(NO_SECRET, validation_alias="OPENAI_API_KEY")
    realtime_url: RealtimeUrl = "wss://api.openai.com/v1/realtime"
    realtime_rotate: Duration = _lasts(50 * MINUTE, SECOND / 10, HOUR)  # the provider's limit
    realtime_model: str = "gpt-realtime"  # of practice calls; other clients name their own
    twilio_token: SecretStr = NO_SECRET  # empty: media streams are not asked for a signature
    call_wait: Duration = _lasts(2 * MINUTE, SECOND / 10, HOUR)  # for the other side of a call
    calls_open: int = Field(100, ge=1, le=100_000)  # of one account

    flower_url: FlowerUrl = NO_SECRET  # http://user:password@host:port, for `baton doctor`

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @property
    def hard_limit(self) -> timedelta:
        """After so long Celery kills a job's process: it has several turns at the most, and checks
        between them."""
        return 6 * self.turn_timeout + 10 * MINUTE

    @property
    def delivered_again(self) -> timedelta:
        """After so long the broker delivers a message again that nobody acknowledged. Far above
        the hard limit; who owns a job never depends on it."""
        return 8 * self.turn_timeout + HOUR

    @property
    def day_budgets(self) -> bool:
        """Whether anything has a budget for a day: then what turns cost is added up."""
        return any(
            getattr(self, f"budget_{of}_{what}") is not None
            for of in ("project", "user", "account", "day")
            for what in ("usd", "turns")
        )

    @property
    def report_every(self) -> timedelta:
        """How often a worker says that it is there."""
        return min(10 * SECOND, self.worker_silent_after / 3)

    @property
    def callbacks_to(self) -> list[str]:
        """The hosts that webhooks may go to, as `callback_hosts` has them."""
        return listed(self.callback_hosts.lower())

    def redis_way(self, url: str | None = None) -> Way:
        """How to reach the Redis of `redis_url`, which must not be empty; or that at `url`."""
        return redis.way(url or self.redis_url.get_secret_value(), self.redis_ca)

    def model_keys(self) -> dict[str, str]:
        """The headers by which the model's API knows who asks; none: there is no key."""
        key = self.anthropic_api_key.get_secret_value()
        bearer = self.anthropic_auth_token.get_secret_value()
        if self.anthropic_base_url and not (key or bearer):
            key = STANDIN_KEY
        keys = {"x-api-key": key, "authorization": f"Bearer {bearer}" if bearer else ""}
        return {name: value for name, value in keys.items() if value}

    def missing(self) -> str | None:
        """The name of an address that a worker cannot do without, if one is not set."""
        return next(
            (n for n in ("DATABASE_URL", "REDIS_URL") if not getattr(self, n.lower())), None
        )


@cache
def settings() -> Settings:
    """The settings of this process. Raises BadSettings with a sentence for people."""
    return read(Settings)


def asking() -> Asking:
    """What a producer needs of them: it is not refused for what only workers use."""
    try:
        return settings()
    except BadSettings:
        return read(Asking)


def name(field: str) -> str:
    """What the environment calls a field of the settings."""
    return name_in(Settings, field)


def span(field: str) -> Span | None:
    """The least and the greatest value of a field, of its own type; None: it is no number."""
    return span_in(Settings, field)
