"""The real servers that a run of the tests has; a test that lacks its server skips and says why."""

from __future__ import annotations

import os
import secrets
from typing import NoReturn

import pytest
from django.db import connection

from tests.databases import url_of

URL_VARIABLES = {
    "redis": "DURABLE_TEST_REDIS_URL",
    "rabbitmq": "DURABLE_TEST_RABBITMQ_URL",
    "mariadb": "DURABLE_TEST_MARIADB_URL",
}


def redis_url() -> str:
    """Return the URL of the Redis of this run, or skip the test."""
    return _url("redis")


def rabbitmq_url() -> str:
    """Return the URL of the RabbitMQ of this run, or skip the test."""
    return _url("rabbitmq")


def mariadb_url() -> str:
    """Return the URL of the MariaDB of this run, or skip the test."""
    return _url("mariadb")


def unique_name(prefix: str = "durable-test") -> str:
    """Return a name for a queue or key prefix that no other test uses; the servers are shared."""
    return f"{prefix}-{secrets.token_hex(6)}"


def skip_without(server: str) -> None:
    """Skip the test if this run lacks the server: redis, rabbitmq, mariadb, or postgresql as its database.

    With DURABLE_TEST_REQUIRE_SERVERS=1 a missing server fails the test. A run on another database never does:
    the suite runs once on each.
    """
    if server == "postgresql":
        _skip_on_other_databases()
    else:
        _url(server)


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test for something that this machine lacks; fail it where DURABLE_TEST_REQUIRE_SERVERS is 1."""
    if os.environ.get("DURABLE_TEST_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{reason}, and DURABLE_TEST_REQUIRE_SERVERS asks for every server", pytrace=False)
    pytest.skip(reason)


def database_url() -> str:
    """Return the URL of the test database, for a process that a test starts with DURABLE_TEST_DATABASE_URL."""
    return url_of(connection.settings_dict)


def _skip_on_other_databases() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("runs on PostgreSQL only")


def _url(server: str) -> str:
    variable = URL_VARIABLES[server]
    return os.environ.get(variable) or skip_or_fail(f"{variable} is not set")
