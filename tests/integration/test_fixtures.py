"""The fixtures keep what they promise: a database of one's own, no key left behind."""

import os

import psycopg
import pytest
import redis

from config.settings import settings
from tests.conftest import Configure, keys_without_end


@pytest.mark.parametrize("_turn", [1, 2])
def test_a_test_finds_its_database_migrated_and_empty(conn: psycopg.Connection, _turn: int):
    assert conn.execute("select count(*) from projects").fetchone() == (0,)
    conn.execute(
        "insert into projects (project_id, user_id, workspace) values ('p', 'u', '/w')"
    )


def test_a_key_that_never_ends_is_told(redis_url: str):
    with (
        redis.Redis.from_url(redis_url) as broker,
        redis.Redis.from_url(redis_url.removesuffix("0") + "1") as ours,
    ):
        broker.lpush("celery", "a message in a queue is the broker's")
        broker.sadd("_kombu.binding.celery", "so is a binding")
        broker.set("ours", "1")
        ours.lpush("list", "1")
        ours.set("with an end", "1", ex=60)
        assert keys_without_end(redis_url) == ["0:ours", "1:list"]
        broker.flushall()


def test_the_environment_of_whoever_runs_the_tests_is_not_seen():
    names = ("ANTHROPIC_", "BATON_", "CLAUDE", "DATABASE_URL", "REDIS_URL")
    assert not [name for name in os.environ if name.startswith(names)]


def test_a_dotenv_of_the_checkout_is_not_read(configure: Configure):
    configure(BATON_SLOTS="7")
    assert settings().slots == 7
    assert not settings().database_url
