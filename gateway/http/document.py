"""The OpenAPI document: what FastAPI tells of the routes, and by what one is known."""

from typing import Any

from fastapi import FastAPI

KEY = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "bk_…",
    "description": "A key that `baton key create` has made.",
}
FREE = ("/healthz", "/readyz", "/v1/session")  # who has no key may


class Documented(FastAPI):
    """The application, and its document."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema:
            return self.openapi_schema
        document = super().openapi()
        document["components"]["securitySchemes"] = {"key": KEY}
        document["security"] = [{"key": []}]
        for place in FREE:
            for operation in document["paths"][place].values():
                operation["security"] = []
        return document
