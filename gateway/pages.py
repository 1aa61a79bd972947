"""The pages `/app/PROJECT` and `/app/voice`, and the files of gateway/static. They tell nothing about any project."""

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from gateway.problems import not_found

router = APIRouter(include_in_schema=False)
STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
TYPES = {
    ".webmanifest": "application/manifest+json",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
}
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@router.api_route("/app/voice", methods=["GET", "HEAD"])
def voice(request: Request) -> Response:
    """The page to try voice with. Its name is taken: a project called `voice` has no page here."""
    return _file("voice.html", request)


@router.api_route("/app/{project}", methods=["GET", "HEAD"])
def app(request: Request, project: str) -> Response:
    """The page: the same for every project."""
    del project
    return _file("app.html", request)


@router.api_route("/static/{name}", methods=["GET", "HEAD"])
def static(request: Request, name: str) -> Response:
    """A file that the page, or a product's own page, is made of."""
    return _file(name, request)


def _file(name: str, request: Request) -> Response:
    found = {one.name: one for one in STATIC.iterdir() if one.is_file()}.get(name)
    if found is None:
        raise not_found("file")
    more = {"Service-Worker-Allowed": "/app/"} if name == "sw.js" else {}
    answer = FileResponse(
        found,
        media_type=TYPES.get(found.suffix),
        headers=HEADERS | more,
        stat_result=found.stat(),
    )
    if answer.headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(
            status_code=304, headers=HEADERS | more | {"ETag": answer.headers["etag"]}
        )
    return answer
