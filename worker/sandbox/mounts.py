"""What the agent finds of this host's files in its box, as arguments of bubblewrap.

    /                            empty and read only, but for what follows
    /usr, /bin, /lib …           as outside, read only; of /etc what programs ask for
    Python, the agent's program,
    PATH, BATON_BOX_READ         as outside, read only, where they lie elsewhere
    /tmp, HOME, /dev/shm         its own, of BATON_BOX_TMP bytes, and gone with the turn
    the project's own workspace  as outside; read only in a turn that only reads
    the turn's own directory     the CLI's configuration and temporary files
    /run/baton                   the way to the egress proxy

The list says what is there: of a home, another project, a socket, `.baton` or a log nothing is,
whatever it is called. Every place is the resolved one; where the worker goes by a link (a folder
on PATH), the box has one too. Should a place of ours lie in what is shown (workspaces below
/usr), an empty directory stands over it.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from config.settings import settings
from worker.sandbox import network, own_etc
from worker.workspace import transport

ROOT = Path("/")
TMP = Path("/tmp")  # noqa: S108 - the box's own
HOME = Path("/home/agent")
RUN, VAR_TMP = Path("/run"), Path("/var/tmp")  # noqa: S108 - as above
SYSTEM = tuple(
    map(
        Path,
        ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives"),
    )
)
# Of the rest of /etc only what holds no secret on any system that we know of: no gitconfig, no
# npmrc, no keys beside the certificates.
ETC = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld-musl-x86_64.path", "nsswitch.conf"),
    *(
        "ssl/certs",
        "ssl/openssl.cnf",
        "ssl/cert.pem",
        "ca-certificates",
        "ca-certificates.conf",
    ),
    *("pki/tls/certs", "pki/tls/openssl.cnf", "pki/tls/cert.pem", "pki/ca-trust"),
    *("crypto-policies", "localtime", "timezone", "locale.alias", "locale.conf", "host.conf"),
    *(
        "gai.conf",
        "protocols",
        "services",
        "mime.types",
        "magic",
        "fonts",
        "terminfo",
        "inputrc",
    ),
    *("os-release", "debian_version", "perl", "python3"),
)
JAVA = "java*"  # its JDKs keep their settings there
OURS = Path(".baton")  # what `baton up` keeps in a checkout: Postgres, Redis, every workspace
SETTINGS_FILE = Path(".env")
SECRETS = (Path("/run/secrets"), Path("/var/run/secrets"))  # where containers are given them
CERTIFICATES = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")  # that the agent's environment names
OPEN = ("--perms", "1777")  # who makes the box may be another than who works in it


def layout(
    workspace: Path,
    *,
    own: Path,
    cli: Path,
    writable: bool,
    uid: int,
    sized: bool,
    networked: bool = True,
) -> list[str]:
    """The files of a box whose agent has this uid; `sized`: bubblewrap can bound a directory;
    `networked`: the way to the egress proxy is among them.

    `own` is the turn's own directory; it, the workspace and the program `cli` are resolved.
    """
    words = [*_system(), *own_etc.files(uid, HOME), *(network.files() if networked else ())]
    words += (*scratch(TMP, sized), *scratch(HOME, sized))
    shown = _programs(cli)
    hidden = _private()
    for place in shown:
        words += (*_way_to(place), "--ro-bind", str(place), str(place))
    for place in (each for each in sorted(hidden) if _lies_in(each, (*SYSTEM, *shown))):
        words += ("--perms", "0755", "--tmpfs", str(place))
    for link, leads in _links(shown).items():
        words += (*_way_to(link), "--symlink", str(leads), str(link))
    for place, bind in ((own, "--bind"), (workspace, "--bind" if writable else "--ro-bind")):
        words += (*_way_to(place), bind, str(place), str(place))
    return words


def scratch(place: Path, sized: bool) -> list[str]:
    """An empty directory that all may write, and that is gone with the box."""
    size = ("--size", str(settings().box_tmp)) if sized else ()
    return [*_way_to(place), *size, *OPEN, "--tmpfs", str(place)]


@cache
def _system() -> tuple[str, ...]:
    """The part that every box of this host has."""
    words: list[str] = []
    for place in SYSTEM:
        if place.is_symlink():
            words += ("--symlink", str(place.readlink()), str(place))
        elif place.is_dir():
            words += (*_way_to(place), "--ro-bind", str(place), str(place))
    etc = Path("/etc")
    for place in (*(etc / name for name in ETC), *sorted(etc.glob(JAVA))):
        if place.exists():
            words += (*_way_to(place), "--ro-bind", str(place), str(place))
    return (*words, *_directory(RUN), *_way_to(VAR_TMP), "--symlink", str(TMP), str(VAR_TMP))


def _programs(cli: Path) -> list[Path]:
    """What is shown beyond the system: each place once, the outer ones first."""
    private = _private()
    places = {
        Path(each).resolve() for each in (sys.prefix, _distribution(), *_path(), *_named())
    }
    places |= {_around(cli, private), *_certificates()}
    wanted = {
        place
        for place in places
        if _is_there(place) and not _lies_in(place, SYSTEM) and not _holds(place, private)
    }
    return sorted(place for place in wanted if not _lies_in(place, wanted - {place}))


def _is_there(place: Path) -> bool:
    """Not where this worker may not look, as into folders of PATH that came with another user's."""
    return os.access(place, os.F_OK)


def _distribution() -> Path:
    """Where Python itself lies; of pyenv's, with what chooses between several of them."""
    base = Path(sys.base_prefix)
    return base.parents[1] if base.parent.name == "versions" else base


def _around(cli: Path, private: Iterable[Path]) -> Path:
    """The directory of the agent's program, or itself where that shows what is nobody's."""
    return cli if _holds(cli.parent, private) else cli.parent


def _path() -> Iterator[Path]:
    """Folders on PATH, but for those that an agent may have written to."""
    agents = [settings().workspaces.resolve(), settings().agent_home.resolve()]
    for folder in map(Path, os.get_exec_path()):
        if folder.is_absolute() and not _lies_in(folder.resolve(), agents):
            yield folder


def _named() -> Iterator[Path]:
    return map(Path, filter(None, settings().box_read.split(":")))


def _certificates() -> Iterator[Path]:
    found = (Path(os.environ.get(name, "")).resolve() for name in CERTIFICATES)
    return (place for place in found if _is_there(place) and place.is_file())


def _links(shown: list[Path]) -> dict[Path, Path]:
    """Links by which the worker goes to what is shown, and that the box would lack."""
    return {
        place: place.resolve()
        for place in (*_path(), *_named())
        if place != place.resolve()
        and _lies_in(place.resolve(), shown)
        and not _lies_in(place.absolute(), (*SYSTEM, *shown))
    }


def _private() -> set[Path]:
    """Places that no agent is to look into, wherever they lie."""
    remote = transport.folder()
    ours = (
        settings().workspaces,
        settings().agent_home,
        OURS.absolute(),
        SETTINGS_FILE.absolute(),
    )
    homes = () if _lies_in(home := Path.home().resolve(), SYSTEM) else (home,)
    more = (*ours, *SECRETS, *((remote,) if remote else ()))
    return {path.resolve() for path in (*more, *homes)} - {ROOT}


def _holds(place: Path, private: Iterable[Path]) -> bool:
    """Whether to show the place would show what is nobody's."""
    return any(place in (each, *each.parents) for each in (*private, TMP))


def _lies_in(place: Path, folders: Iterable[Path]) -> bool:
    return any(folder == place or folder in place.parents for folder in folders)


def _way_to(place: Path) -> list[str]:
    """What makes the directories that lead to a place; by itself bubblewrap would make them for
    their maker alone."""
    ahead = (each for each in reversed(place.parents) if each != ROOT)
    return [word for each in ahead for word in _directory(each)]


def _directory(place: Path) -> tuple[str, ...]:
    return ("--perms", "0755", "--dir", str(place))
