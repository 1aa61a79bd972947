"""A host is read in one strict way, and what is not written as one is none."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.hosts import BadHost, Target, read, read_all
from egress.judge import is_public

ODD = st.text(st.sampled_from("aé.0-:[]@%/\\?#\0\n\t xX1２。"), max_size=30)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("pypi.org:443", Target("pypi.org", 443)),
        ("PyPI.org:8443", Target("pypi.org", 8443)),
        ("localhost:1", Target("localhost", 1)),
        ("10.0.0.7:5432", Target("10.0.0.7", 5432)),
        ("[fd00:0:0::7]:443", Target("fd00::7", 443)),
        ("xn--bcher-kva.example:443", Target("xn--bcher-kva.example", 443)),
    ],
)
def test_a_host_and_its_port_are_read(text: str, target: Target):
    assert read(text) == target
    assert read(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        *("", ":443", "pypi.org", "pypi.org:", "pypi.org:0", "pypi.org:65536", "pypi.org:+1"),
        *("pypi.org:443:443", "pypi.org.:443", ".pypi.org:443", "a..b:443", "-a.b:443"),
        *("a_b.org:443", "user@pypi.org:443", "pypi.org@evil:443", "evil\0.pypi.org:443"),
        *(
            "pypi.org\n:443",
            "pypi.org:443\n",
            " pypi.org:443",
            "pypi.org/:443",
            "pypi%2eorg:443",
        ),
        *("2130706433:443", "0x7f000001:443", "0x7f.1:443", "127.1:443", "0177.0.0.1:443"),
        *("127.0.0.01:443", "1.2.3.4.:443", "a.0x:443", "1.2.3.999:443", "１27.0.0.1:443"),
        *("::1:443", "[::1:443", "[::1]443", "[::1%lo]:443", "[127.0.0.1]:443", "[]:443"),
        *("[fd00::7]x:443", "pypı.org:443", "\u212aube.org:443", "例.org:443", "[::1]:"),
    ],
)
def test_what_is_written_otherwise_is_refused(text: str):
    with pytest.raises(BadHost):
        read(text)


@given(ODD)
def test_whatever_is_read_is_a_plain_name_or_an_address_in_full(text: str):
    try:
        target = read(text, port=443)
    except BadHost:
        return
    assert 0 < target.port < 65_536
    if target.address is not None:
        assert str(ipaddress.ip_address(target.host)) == target.host
    else:
        assert target.host.isascii()
        assert set(target.host) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
        assert not target.host.split(".")[-1].isdigit()
        assert not target.host.endswith(".")
    assert read(str(target)) == target


@given(st.ip_addresses())
def test_an_address_that_carries_or_is_a_private_one_is_not_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
):
    if address.is_private or address.is_loopback or address.is_link_local:
        assert not is_public(address)
    if isinstance(address, ipaddress.IPv4Address):
        assert not is_public(ipaddress.ip_address(f"::ffff:{address}"))
        carried = int(ipaddress.ip_address("64:ff9b::")) + int(address)
        assert not is_public(ipaddress.ip_address(carried))


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fd00::1"),
        *("ff02::1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "2002:a00:1::", "192.0.2.1"),
    ],
)
def test_addresses_of_no_host_of_the_internet_are_not_public(text: str):
    assert not is_public(ipaddress.ip_address(text))


def test_a_list_has_https_where_no_port_is_named():
    targets = list(read_all("pypi.org, mirror.corp:8080,,[fd00::7]"))
    assert targets == [
        Target("pypi.org", 443),
        Target("mirror.corp", 8080),
        Target("fd00::7", 443),
    ]
