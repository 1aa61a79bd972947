"""Who calls over HTTP: the account of a bearer key, or the guest of a browser's cookie."""

from dataclasses import dataclass
from typing import Annotated, NoReturn

from fastapi import Depends, Request

from db.live import connections, keys, log, owners
from gateway.access import origins
from gateway.access.expiry import has_ended
from gateway.problems import Problem, not_found
from gateway.state import State
from worker.live.tickets import Guest, cookie_name


async def state(request: Request) -> State:
    """What this gateway has. (Async, as each thing that is asked of a request here: FastAPI hands
    what is not to a thread, which costs more than the work. And none asks for another by `Depends`:
    to resolve one costs as much as a small query.)"""
    return request.app.state.baton


CHALLENGE = {"WWW-Authenticate": "Bearer"}
Here = Annotated[State, Depends(state)]


@dataclass(frozen=True, slots=True)
class Caller:
    """An account with its scopes; or, of a browser, a guest of one project."""

    account: str | None = None
    scopes: frozenset[str] = frozenset()
    guest: Guest | None = None

    @property
    def user(self) -> str | None:
        """Whom it speaks for, if for one user only."""
        return self.guest.user if self.guest else None


async def caller(request: Request) -> Caller:
    """Raises Problem 401 where neither a key nor a cookie counts."""
    here = await state(request)
    if request.headers.get("authorization"):
        key = bearer(request)
        async with here.pool.connection() as conn:
            found = await keys.holder(conn, key) if key else None
        if found is None:
            raise _unknown()
        if found.ended:
            raise Problem(401, "key_expired", has_ended(found.ended), headers=CHALLENGE)
        return Caller(found.account, found.scopes)
    if guest := await guest_of(request, here, _named(request)):
        if request.method not in ("GET", "HEAD") and not origins.allowed(request):
            raise Problem(
                403, "bad_origin", "This page may not act here: name it in BATON_WEB_ORIGINS."
            )
        return Caller(guest=guest)
    raise _unknown()


def bearer(request: Request) -> str:
    """The key that comes with it, whether it counts or not; empty: none."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _named(request: Request) -> str | None:
    """The project that it is about: of the path, or as a page with several cookies says of a job."""
    return request.path_params.get("project") or request.query_params.get("project")


async def guest_of(request: Request, here: State, project: str | None) -> Guest | None:
    """The guest of the browser's cookie for the project, or of the only one that it has."""
    names = (
        [cookie_name(project)]
        if project
        else [n for n in request.cookies if n.startswith("baton_")]
    )
    for name in names:
        guest = here.tickets.of_cookie(request.cookies.get(name, ""))
        if guest and (project is None or guest.project == project):
            async with here.pool.connection() as conn:
                if not await connections.signed_out(conn, guest.id):
                    return guest
    return None


def _unknown() -> Problem:
    return Problem(
        401, "unauthenticated", "Give a key that counts: Authorization: Bearer bk_…", headers=CHALLENGE
    )  # fmt: skip


Who = Annotated[Caller, Depends(caller)]


async def producer(request: Request) -> Caller:
    """A key with the scope `jobs`."""
    who = await caller(request)
    if who.account is None or "jobs" not in who.scopes:
        raise Problem(403, "forbidden", "This needs a key with the scope jobs.")
    return who


Producer = Annotated[Caller, Depends(producer)]


async def refuse(request: Request) -> NoReturn:
    """Say why whoever came with no key that has the scope `jobs` may not ask."""
    await producer(request)
    raise _unknown()  # the key has been made just now


async def check_project(here: State, who: Caller, project: str) -> None:
    """Raises the same 404 for a project that is not there and for one that is another's."""
    if who.guest is not None:
        if who.guest.project != project:
            raise not_found("project")
        async with here.pool.connection() as conn:
            found = await log.project(conn, project)
        if found is not None and found.user_id != who.guest.user:  # it began as another user's
            raise not_found("project")
        return
    if not name_fits(project):
        raise not_found("project")
    async with here.pool.connection() as conn:
        if "jobs" not in who.scopes or not await owners.owns(conn, who.account or "", project):
            raise not_found("project")


def name_fits(text: str) -> bool:
    """Whether Postgres can be asked for a row of that name."""
    return 0 < len(text) <= 200 and "\x00" not in text and text.isprintable()
