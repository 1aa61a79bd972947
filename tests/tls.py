"""TLS before a server that has none, with certificates made for the test."""

import asyncio
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dev.stack.processes import LOOPBACK, free_port

SSL_REQUEST = bytes.fromhex("00000008 04d2162f")  # what a client of Postgres sends first


@dataclass(frozen=True)
class Signer:
    """One that signs certificates; its own lies in the file `ca`."""

    ca: Path
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def made(cls, place: Path) -> "Signer":
        key = ec.generate_private_key(ec.SECP256R1())
        ca = place / "ca.pem"
        made = _begun("who signs", "who signs", key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        ca.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return cls(ca, key)

    def certificate(self, address: str) -> Path:
        """A file with a certificate for that address, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _begun("server", "who signs", key).add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False
        )
        file = self.ca.with_name(f"{address}.pem")
        file.write_bytes(
            made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return file


def _begun(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)

    def name(of: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, of)])

    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
    )


@contextmanager
def tls_before(port: int, certificate: Path, *, postgres: bool = False) -> Generator[int]:
    """The port of a proxy that speaks TLS with this certificate, before that loopback port; as
    Postgres does where it is one, in clear until the client asks."""
    here, loop, ready = free_port(), asyncio.new_event_loop(), threading.Event()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    ended = asyncio.Event()

    async def serve() -> None:
        at_once = None if postgres else context
        async with await asyncio.start_server(connect, LOOPBACK, here, ssl=at_once):
            ready.set()
            await ended.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def connect(reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        if postgres and not await _asked_for_tls(reading, writing, context):
            return
        there, back = await asyncio.open_connection(LOOPBACK, port)
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.wait(
                {
                    asyncio.create_task(_carry(reading, back)),
                    asyncio.create_task(_carry(there, writing)),
                },
                return_when=asyncio.FIRST_COMPLETED,
            )
        for one in (back, writing):
            one.transport.abort()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    loop.set_exception_handler(_unheard)  # a client that refuses us is what is tested
    thread.start()
    assert ready.wait(5)
    try:
        yield here
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


async def _asked_for_tls(
    reading: asyncio.StreamReader, writing: asyncio.StreamWriter, context: ssl.SSLContext
) -> bool:
    """Begin TLS as the client of a Postgres asks for it; whether that came about."""
    with suppress(OSError, asyncio.IncompleteReadError):
        if await reading.readexactly(len(SSL_REQUEST)) == SSL_REQUEST:
            writing.write(b"S")
            await writing.start_tls(context)
            return True
    writing.transport.abort()
    return False


def _unheard(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
    pass


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(2**16):
            target.write(piece)
            await target.drain()
