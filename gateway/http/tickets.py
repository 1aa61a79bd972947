"""Tickets for browsers, and the cookie that a page changes its ticket for."""

from fastapi import APIRouter, Request, Response

from db.live import connections, log, owners
from gateway.access import origins
from gateway.http import forms
from gateway.http.callers import Here, Producer, guest_of
from gateway.problems import Problem, not_found
from worker.failures.refused import refusing
from worker.live.tickets import COOKIE, cookie_name

router = APIRouter(prefix="/v1", tags=["browsers"])


@router.post("/tickets")
async def make_ticket(here: Here, who: Producer, asked: forms.TicketAsk) -> forms.Ticket:
    """A ticket for a browser: for five minutes, for this project and user."""
    async with here.pool.connection() as conn:
        found = await log.project(conn, asked.project)
        if found is None:  # it begins with what is asked for in the page
            with refusing():
                await conn.execute(owners.NAMES, (asked.project, asked.user))
            known = await owners.take(conn, who.account or "", asked.project)
        else:
            known = found.user_id == asked.user and await owners.owns(
                conn, who.account or "", asked.project
            )
    if not known:
        raise not_found("project")
    ticket, until = here.tickets.ticket(asked.project, asked.user)
    return forms.Ticket(ticket=ticket, expires_at=until)


@router.post("/session")
async def begin(
    here: Here, request: Request, answer: Response, given: forms.SessionAsk
) -> forms.Session:
    """Change a ticket for a cookie."""
    if not origins.allowed(request):
        raise Problem(
            403, "bad_origin", "This page may not act here: name it in BATON_WEB_ORIGINS."
        )
    guest = here.tickets.of_ticket(given.ticket)
    if guest is not None:
        async with here.pool.connection() as conn:
            guest = None if await connections.signed_out(conn, guest.id) else guest
    if guest is None:
        raise Problem(
            401, "bad_ticket", "The ticket does not count any more: ask for a new one."
        )
    cookie, until = here.tickets.cookie(guest)
    answer.set_cookie(
        cookie_name(guest.project),
        cookie,
        max_age=int(COOKIE.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return forms.Session(project=guest.project, user=guest.user, expires_at=until)


@router.delete("/session", status_code=204)
async def end(
    here: Here, request: Request, answer: Response, project: str | None = None
) -> None:
    """Sign out: neither the cookie nor its ticket counts any more."""
    if not origins.allowed(request):
        raise Problem(
            403, "bad_origin", "This page may not act here: name it in BATON_WEB_ORIGINS."
        )
    guest = await guest_of(request, here, project)
    if guest is None:
        raise Problem(401, "unauthenticated", "Nobody is signed in here.")
    async with here.pool.connection() as conn:
        await connections.sign_out(conn, guest.id, guest.until + COOKIE)
    answer.delete_cookie(cookie_name(guest.project))
