"""Redis behind TLS: redis-py's side and Celery's verify alike, by one URL and one setting."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import certifi
import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from config.rules import check
from config.settings import BadSettings, settings
from dev.stack.server import ServiceError
from dev.stack.services import services
from tests.conftest import Configure
from tests.machine import needs_redis_with_tls
from tests.redis_tls import redis_with_tls
from tests.tls import Signer, tls_before
from worker.broker.connection import address
from worker.cli import doctor
from worker.live.checkpoints import BROKER, client

Tls = Callable[..., str]


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.made(tmp_path)


@pytest.fixture
def tls(redis_url: str, signer: Signer, configure: Configure) -> Iterator[Tls]:
    """`tls(for_="127.0.0.1", query="?…", BATON_REDIS_CA=…)`: Redis behind TLS is in the settings;
    the URL."""
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    with ExitStack() as stays:

        def begin(for_: str = "127.0.0.1", query: str = "", **env: str) -> str:
            here = stays.enter_context(tls_before(port, signer.certificate(for_)))
            who = urlsplit(redis_url).netloc.partition("@")[0]
            url = f"rediss://{who}@127.0.0.1:{here}/0{query}"
            configure(REDIS_URL=url, **env)
            return url

        yield begin


def sends() -> bool:
    """Whether Celery's side sends a message, by the settings."""
    with Celery(set_as_current=False, amqp="worker.broker.connection:Amqp") as app:
        app.conf.update(**address())
        try:
            with app.connection_for_write() as broker:
                broker.ensure_connection(max_retries=1, interval_start=0, interval_max=0)
        except OperationalError as exc:
            return _not_trusted(exc)
        app.send_task("nobody's", queue="nobody's", retry=False)
    with client(BROKER) as broker:
        broker.delete("nobody's")
    return True


def answers() -> bool:
    """Whether redis-py's side connects, by the settings."""
    try:
        with client(BROKER) as found:
            return bool(found.ping())
    except redis.ConnectionError as exc:
        return _not_trusted(exc)


def _not_trusted(exc: Exception) -> Literal[False]:
    """False, for the reason that is meant."""
    if "CERTIFICATE_VERIFY_FAILED" not in str(exc):
        raise exc
    return False


def told() -> tuple[str, str]:
    """What doctor says of Redis."""
    return next((one.state, one.text) for one in doctor.examine() if one.name == "redis")


def test_a_certificate_that_nobody_signed_is_refused_on_both_sides(tls: Tls):
    tls()
    assert (answers(), sends()) == (False, False)
    state, text = told()
    assert (state, "BATON_REDIS_CA" in text) == ("fail", True), text


def test_one_whose_signer_is_named_is_taken_on_both_sides(tls: Tls, signer: Signer):
    tls(BATON_REDIS_CA=str(signer.ca))
    assert (answers(), sends()) == (True, True)
    assert told()[0] == "ok"


@needs_redis_with_tls
def test_redis_own_tls_is_verified_on_both_sides_too(
    tmp_path: Path, signer: Signer, configure: Configure
):
    with redis_with_tls(tmp_path, signer) as url:
        configure(REDIS_URL=url)
        assert (answers(), sends()) == (False, False)
        configure(REDIS_URL=url, BATON_REDIS_CA=str(signer.ca))
        assert (answers(), sends()) == (True, True)
        assert told()[0] == "ok"


def test_one_that_is_for_another_host_is_refused_on_both_sides(tls: Tls, signer: Signer):
    tls(for_="192.0.2.1", BATON_REDIS_CA=str(signer.ca))
    assert (answers(), sends()) == (False, False)
    assert "192.0.2.1" in told()[1] or "IP address mismatch" in told()[1]


@pytest.mark.parametrize("none", ["none", "CERT_NONE"])
def test_what_the_url_says_of_it_counts_on_both_sides_and_doctor_warns(tls: Tls, none: str):
    tls(query=f"?ssl_cert_reqs={none}")
    assert (answers(), sends()) == (True, True)
    state, text = told()
    assert (state, "whoever is between" in text) == ("warn", True)


def test_the_signer_may_be_named_in_the_url(tls: Tls, signer: Signer):
    url = tls()
    assert not answers()
    tls(query=f"?ssl_cert_reqs=required&ssl_ca_certs={signer.ca}")
    assert (answers(), sends()) == (True, True)
    assert url != settings().redis_url.get_secret_value()


def test_the_url_for_other_producers_has_what_they_need_to_verify_too(tls: Tls, signer: Signer):
    tls(BATON_REDIS_CA=str(signer.ca))
    plain = settings().redis_way().for_celery
    with (
        Celery(broker=plain, set_as_current=False) as app,
        app.connection_for_write() as broker,
    ):
        given: Any = broker.ssl
        assert given["ssl_cert_reqs"] == ssl.CERT_REQUIRED
        broker.ensure_connection(max_retries=1)
    tls(for_="192.0.2.1")
    elsewhere = f"{settings().redis_way().address}/0?{plain.partition('?')[2]}"
    with (
        Celery(broker=elsewhere, set_as_current=False) as app,
        app.connection_for_write() as broker,
        pytest.raises(OperationalError, match="CERTIFICATE"),
    ):
        broker.ensure_connection(max_retries=1, interval_start=0, interval_max=0)


def test_baton_up_does_not_begin_on_one_that_it_cannot_verify(
    tls: Tls, tmp_path: Path, dsn: str
):
    url = tls()
    with (
        pytest.raises(ServiceError, match="certificate"),
        services(tmp_path, database_url=dsn, redis_url=url),
    ):
        pass


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"REDIS_URL": "redis://h:1/0?ssl_cert_reqs=none"}, "REDIS_URL is not usable"),
        ({"REDIS_URL": "rediss://h:1/0?ssl_cert_reqs=maybe"}, "REDIS_URL is not usable"),
        ({"REDIS_URL": "rediss://h:1/0?db=3"}, "REDIS_URL is not usable"),
        ({"REDIS_URL": "rediss://h:1/0?ssl_check_hostname=sure"}, "neither true nor false"),
        ({"REDIS_URL": "rediss://h:1/0?ssl_ca_certs=/none"}, "holds no certificate"),
        ({"BATON_REDIS_CA": "/none.pem"}, "BATON_REDIS_CA is not usable"),
        (
            {"REDIS_URL": "redis://h:1", "BATON_REDIS_CA": certifi.where()},
            "begins with rediss://",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_begins(
    configure: Configure, env: dict[str, str], sentence: str
):
    configure(**env)
    with pytest.raises(BadSettings, match=sentence):
        check(settings())
