from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from django_durable.management.arguments import Address, address, json_object


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8000", Address("127.0.0.1", 8000)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),
        ("example.test:8001", Address("example.test", 8001)),
        ("[::1]:8000", Address("::1", 8000, ipv6=True)),
    ],
)
def test_an_address_is_a_port_or_host_and_port(text: str, expected: Address) -> None:
    assert address(text) == expected


@pytest.mark.parametrize("text", ["", "http", "65536", "127.0.0.1", "::1:8000"])
def test_another_address_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="address:port"):
        address(text)


def test_broken_json_is_refused_with_its_place() -> None:
    with pytest.raises(ArgumentTypeError, match="line 2, column 3"):
        json_object('{"a": 1,\n  b}')


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5_000], ids=["deep", "long"])
def test_json_that_python_cannot_read_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="this JSON cannot be read"):
        json_object(text)
