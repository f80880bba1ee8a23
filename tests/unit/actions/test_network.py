from __future__ import annotations

import socket
from typing import Any

import httpcore
import pytest

from augury.actions import network
from augury.actions.failures import DeliveryError
from augury.actions.network import CheckedBackend, is_allowed, parse_networks, resolve


def judged(address: str, networks: str = "") -> bool:
    (found,) = resolve(address, 443)
    return is_allowed(found, parse_networks(networks))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",  # metadata of Alibaba
        "169.254.169.254",  # metadata of AWS, GCP, Azure, OCI
        "192.0.0.192",  # metadata of OCI classic
        "168.63.129.16",  # platform of Azure
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not judged(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"]
)
def test_what_is_public_is_allowed(address: str) -> None:
    assert judged(address)


def test_a_setting_opens_networks_and_nothing_else() -> None:
    assert judged("10.1.2.3", "10.0.0.0/8, fd00::/8")
    assert judged("fd00::1", "10.0.0.0/8,fd00::/8")
    assert judged("::ffff:10.1.2.3", "10.0.0.0/8")
    assert not judged("11.0.0.1".replace("11", "127"), "10.0.0.0/8")
    with pytest.raises(ValueError, match="host bits"):
        parse_networks("10.0.0.1/8")


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[tuple[str, int]]:
    """The name server says these; connections are recorded instead of made."""
    made: list[tuple[str, int]] = []

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 443)) for text in addresses]

    def connect_tcp(_self: Any, host: str, port: int, **_: Any) -> httpcore.NetworkStream:
        made.append((host, port))
        if host.endswith(".9"):
            raise httpcore.ConnectError
        return httpcore.NetworkStream()

    monkeypatch.setattr(network.socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    return made


def test_the_connection_goes_to_the_address_that_was_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that changes its mind between two looks is looked up once."""
    made = answers(monkeypatch, "8.8.8.9", "1.1.1.1")
    CheckedBackend((), 5.0).connect_tcp("rebind.example.com", 443)
    assert made == [("8.8.8.9", 443), ("1.1.1.1", 443)]


def test_one_private_address_among_public_ones_is_enough_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = answers(monkeypatch, "1.1.1.1", "10.0.0.1")
    with pytest.raises(
        DeliveryError, match=r"example\.com is 10\.0\.0\.1.*AUGURY_WEBHOOK_NETWORKS"
    ):
        CheckedBackend((), 5.0).connect_tcp("example.com", 443)
    assert made == []


def test_time_that_is_over_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "1.1.1.1")
    with pytest.raises(httpcore.TimeoutException):
        CheckedBackend((), -1.0).connect_tcp("example.com", 443)
