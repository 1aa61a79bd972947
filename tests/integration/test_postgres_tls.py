"""Postgres behind TLS: what DATABASE_URL says of it counts at each door."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from db.core import migrate, pool
from tests import postgres_tls
from tests.conftest import Configure
from tests.machine import LACKS
from tests.tls import Signer, tls_before
from worker.cli import doctor

Tls = Callable[..., None]


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.made(tmp_path)


@pytest.fixture
def tls(dsn: str, signer: Signer, configure: Configure) -> Iterator[Tls]:
    """`tls("verify-full", for_="127.0.0.1", ca=…)`: Postgres behind TLS is in the settings."""
    parts = urlsplit(dsn)
    with ExitStack() as stays:

        def begin(mode: str, for_: str = "127.0.0.1", ca: Path | str = "system") -> None:
            there = tls_before(parts.port or 0, signer.certificate(for_), postgres=True)
            here = stays.enter_context(there)
            address = f"{parts.netloc.rpartition(':')[0]}:{here}{parts.path}"
            configure(DATABASE_URL=f"postgresql://{address}?sslmode={mode}&sslrootcert={ca}")
            pool.close()

        yield begin
        pool.close()


def doors() -> list[bool]:
    """Whether each comes in: a process's connection, a pool's, a migration, doctor."""
    return [_connects(), _pools(), _migrates(), told()[0] != "fail"]


def _connects() -> bool:
    try:
        pool.connect().close()
    except pool.NoDatabase as exc:
        return "sslrootcert" not in str(exc)
    return True


def _pools() -> bool:
    try:
        with pool.connection(timeout=0.5):
            return True
    except psycopg.OperationalError:
        return False


def _migrates() -> bool:
    try:
        migrate.migrate()
    except pool.NoDatabase:
        return False
    return True


def told() -> tuple[str, str]:
    """What doctor says of Postgres."""
    return next((one.state, one.text) for one in doctor.examine() if one.name == "postgres")


def test_one_whose_signer_is_named_is_taken_at_each_door(tls: Tls, signer: Signer):
    tls("verify-full", ca=signer.ca)
    assert doors() == [True] * 4


def test_one_that_nobody_signed_is_refused_at_each_door(tls: Tls):
    tls("verify-full")
    assert doors() == [False] * 4


def test_one_that_is_for_another_host_is_refused_at_each_door(tls: Tls, signer: Signer):
    tls("verify-full", for_="192.0.2.1", ca=signer.ca)
    assert doors() == [False] * 4
    assert "does not match host name" in told()[1]


@pytest.mark.skipif(postgres_tls.programs() is None, reason=LACKS + "a Postgres that has TLS")
def test_postgres_own_tls_is_verified_at_each_door(
    signer: Signer, tmp_path: Path, configure: Configure
):
    (other := tmp_path / "other").mkdir()
    stranger = Signer.made(other).ca
    with postgres_tls.postgres_with_tls(tmp_path, signer.certificate("127.0.0.1")) as address:
        for ca, comes_in in ((signer.ca, True), (stranger, False), ("system", False)):
            url = f"postgresql://{address}?sslmode=verify-full&sslrootcert={ca}"
            configure(DATABASE_URL=url)
            pool.close()
            assert doors() == [comes_in] * 4, ca
            if not comes_in:
                assert told()[1].startswith("Postgres is not to be trusted (")
        pool.close()


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_what_the_url_says_of_postgres_counts_at_each_door(
    mode: str, dsn: str, configure: Configure
):
    """Our Postgres has no TLS, so each door must refuse it."""
    url = (
        f"{dsn}?sslmode={mode}&sslrootcert=system"
        if mode == "verify-full"
        else f"{dsn}?sslmode={mode}"
    )
    configure(DATABASE_URL=url)
    pool.close()
    assert doors() == [False] * 4
    pool.close()
