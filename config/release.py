"""Which release of Baton this is. pyproject.toml says it; the installation knows it."""

from importlib import metadata

DISTRIBUTION = "baton-jobs"  # as pip knows it


def version() -> str:
    """Such as `0.1.0`; `unknown` where the code lies there without having been installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
