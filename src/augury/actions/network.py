"""Connections to addresses that have been looked at.

A webhook's host is resolved here, every address is judged, and the connection goes to an address
that was judged, as a number. So neither a name that resolves differently the second time (DNS
rebinding) nor a clever way of writing 127.0.0.1 reaches what must not be reached. Redirects cannot
help either: nobody follows them. `httpcore` is used because its network backend is a documented
place to do this; `httpx` and `urllib3` resolve where nobody can look.

The same place holds the deadline: each read gets what is left of the whole exchange's time, so a
server that sends one byte now and then cannot hold a thread for longer than that.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from augury import clock
from augury.actions.failures import DeliveryError

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# public by its number, but only a host in Azure sees it: the metadata and DNS of the platform
_AZURE_PLATFORM = ipaddress.IPv4Address("168.63.129.16")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks from a setting: `10.0.0.0/8, fd00::/8`.

    Raises:
        ValueError: one of them is none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(ipaddress.ip_network(part) for part in parts)


def is_allowed(address: Address, networks: Sequence[Network]) -> bool:
    """Whether a webhook may be sent to an address: it is public, or in one of `networks`."""
    if any(address in network for network in networks if network.version == address.version):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_allowed(inner, networks)
    return address.is_global and not address.is_multicast and address != _AZURE_PLATFORM


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a packet to this IPv6 address ends at, if it is such a one."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


class CheckedBackend(httpcore.NetworkBackend):
    """Connects for one exchange.

    Args:
        networks: that may be reached although they are not public.
        timeout_s: seconds from now in which everything has to be over.
    """

    def __init__(self, networks: Sequence[Network], timeout_s: float) -> None:
        self._networks = networks
        self._deadline_s = clock.monotonic_s() + timeout_s
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connects to one of the host's addresses; all of them are judged before.

        Raises:
            DeliveryError: the host has no address, or one that must not be reached.
            httpcore.ConnectError: none of them answers.
        """
        addresses = self._judged(host, port)
        for number, address in enumerate(addresses, 1):
            try:
                stream = self._plain.connect_tcp(
                    address, port, timeout=_left_s(self._deadline_s), socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
            else:
                return _TimedStream(stream, self._deadline_s)
        raise AssertionError("the last address either answers or raises")

    def _judged(self, host: str, port: int) -> list[str]:
        found = resolve(host, port)
        refused = [address for address in found if not is_allowed(address, self._networks)]
        if refused:
            raise DeliveryError(
                f"{host} is {refused[0]}, which is not a public address; if it is meant, add its "
                "network to AUGURY_WEBHOOK_NETWORKS",
                is_permanent=True,
            )
        return [str(address) for address in found]


def resolve(host: str, port: int) -> list[Address]:
    """All addresses of a host, the preferred one first.

    Raises:
        DeliveryError: it has none, or the name server does not answer: that may change.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryError(f"the name {host} cannot be resolved: {error}") from error
    texts = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return [ipaddress.ip_address(text) for text in texts]


class _TimedStream(httpcore.NetworkStream):
    """A stream on which every step gets what is left of the time."""

    def __init__(self, stream: httpcore.NetworkStream, deadline_s: float) -> None:
        self._stream = stream
        self._deadline_s = deadline_s

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout=_left_s(self._deadline_s))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout=_left_s(self._deadline_s))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, _left_s(self._deadline_s))
        return _TimedStream(secured, self._deadline_s)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - clock.monotonic_s()
    if left_s <= 0:
        raise httpcore.ReadTimeout("the time for the whole exchange is over")
    return left_s
