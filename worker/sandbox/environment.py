"""What of the worker's environment an agent may see. Standard library only: the keeper asks."""

ALLOWED = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "TZ",
        "TERM",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "PWD",
        "SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS",
        "ANTHROPIC_API_KEY",  # a token of the turn; the key stays outside, with the egress proxy
        "API_TIMEOUT_MS",
        "ENABLE_PROMPT_CACHING_1H",  # how long the provider keeps prompts for us
        "FORCE_PROMPT_CACHING_5M",
        "IS_SANDBOX",
        "BATON_ATTEMPT",
        "GIT_CEILING_DIRECTORIES",
        "GIT_CONFIG_COUNT",
        "GIT_CONFIG_KEY_0",
        "GIT_CONFIG_KEY_1",
        "GIT_CONFIG_VALUE_0",
        "GIT_CONFIG_VALUE_1",
    ]
)
ALLOWED_PREFIXES = ("LC_", "CLAUDE_", "_CLAUDE_", "ANTHROPIC_", "DISABLE_")
SECRET = ("_KEY", "_TOKEN", "_HEADERS", "_SECRET", "_PASSWORD", "_PASSPHRASE")


def allowed(environ: dict[str, str]) -> dict[str, str]:
    """What of the worker's environment the agent may see: by list, never by exception."""
    return {
        name: value
        for name, value in environ.items()
        if name in ALLOWED or (name.startswith(ALLOWED_PREFIXES) and not name.endswith(SECRET))
    }
