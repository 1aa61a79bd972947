"""Whether an agent may reach a host: the list first, then the address that its name leads to.

A name is resolved here, once, and the connection goes to the address that was looked at: what
the name leads to a moment later does not matter.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from config.hosts import Address, BadHost, Target, read

PATIENCE = 10.0  # seconds for a name, and for a connection
# Addresses that carry another one inside, which nobody has looked at.
CARRIERS = tuple(
    map(ipaddress.ip_network, ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"))
)


class NotAllowed(Exception):
    """The host may not be reached: its name as it may be told, and the code of the reason."""

    def __init__(self, host: str, why: str, text: str) -> None:
        super().__init__(text)
        self.host, self.why = host, why


@dataclass(frozen=True, slots=True)
class Judge:
    """Knows the list (BATON_EGRESS)."""

    allowed: frozenset[Target]

    def named(self, text: str, *, port: int | None = None) -> Target:
        """The target that is asked for, if it is on the list. Raises NotAllowed."""
        try:
            target = read(text, port=port)
        except BadHost as exc:
            raise NotAllowed("", "not_a_host", f"This names no host: {exc}.") from exc
        if target not in self.allowed:
            if any(one.host == target.host for one in self.allowed):
                raise NotAllowed(
                    str(target),
                    "port",
                    f"{target} is not on the list of hosts: its port is not.",
                )
            raise NotAllowed(
                str(target),
                "not_listed",
                f"{target} is not on the list of hosts (BATON_EGRESS).",
            )
        return target

    async def addresses(self, target: Target) -> list[str]:
        """Where a target that is on the list may be reached. Raises NotAllowed, and OSError."""
        if target.address is not None:
            return [target.host]  # named literally
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.get_running_loop().getaddrinfo(
                target.host, target.port, type=socket.SOCK_STREAM
            )
        good = list(self._good((str(one[4][0]) for one in found), target.port))
        if not good:
            raise NotAllowed(
                str(target), "private", f"{target} leads to an address that is not public."
            )
        return good

    def _good(self, addresses: Iterable[str], port: int) -> Iterable[str]:
        for text in dict.fromkeys(addresses):
            if Target(text, port) in self.allowed or is_public(ipaddress.ip_address(text)):
                yield text


def is_public(address: Address) -> bool:
    """Whether it is an address of the internet, and of one host."""
    if address.is_multicast or not address.is_global:
        return False
    return not any(address in net for net in CARRIERS if net.version == address.version)
