"""Where a webhook may go: public addresses only, and private networks that an operator named.

A name is resolved once, and what is connected to is the address that was looked at: a name that
points elsewhere a moment later leads nobody into our network.
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from config.settings import listed, settings

Address = IPv4Address | IPv6Address
NAT64 = ip_network("64:ff9b::/96")


class Forbidden(Exception):
    """Nothing is sent there; the text says why, and what to do."""


async def resolved(host: str, port: int) -> list[str]:
    """The addresses of the host, each of which may be connected to. Raises Forbidden, or OSError
    where it has none."""
    check_host(host)
    found = await asyncio.get_running_loop().getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM
    )
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    for one in addresses:
        if not allowed(ip_address(one.partition("%")[0])):
            raise Forbidden(
                f"{host} leads to the private address {one}: name its network in"
                " BATON_CALLBACK_NETWORKS, or give a public address."
            )
    return addresses


def check_host(host: str) -> None:
    """Raises Forbidden for a host that no webhook may go to any more."""
    for one in settings().callbacks_to:
        below = one.startswith("*.") and host.endswith(one[1:])
        if one in (host, "*") or below:
            return
    raise Forbidden(f"No webhook may go to {host}: name it in BATON_CALLBACK_HOSTS.")


def allowed(address: Address) -> bool:
    """Whether it is public, or of a network that may be reached all the same."""
    inside = _inside(address)
    if any(one in ip_network(n) for n in listed(settings().callback_networks)
           for one in (address, inside)):  # fmt: skip
        return True
    return all(one.is_global and not one.is_multicast for one in (address, inside))


def _inside(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it stands for one; else itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address
