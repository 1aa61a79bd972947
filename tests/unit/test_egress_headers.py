"""What the egress proxy changes in the headers of a request to the model."""

import pytest

from egress.model import as_for_a_key

PROVENANCE = b"tool-provenance-2026-10-26"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (
            b"one-2026-01-01," + PROVENANCE + b",two-2026-01-01",
            b"one-2026-01-01,two-2026-01-01",
        ),
        (PROVENANCE + b", two-2026-01-01", b"two-2026-01-01"),
        (b"one-2026-01-01, " + PROVENANCE, b"one-2026-01-01"),
        (b"one-2026-01-01,two-2026-01-01", b"one-2026-01-01,two-2026-01-01"),
    ],
)
def test_a_beta_that_a_bearer_alone_has_is_not_asked_for_with_a_key(given: bytes, sent: bytes):
    other = (b"x-app", PROVENANCE)
    assert as_for_a_key([(b"anthropic-beta", PROVENANCE)]) == []
    asked = as_for_a_key([(b"anthropic-beta", given), other])
    assert asked == [(b"anthropic-beta", sent), other]
