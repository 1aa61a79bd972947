"""The OpenAPI document: what FastAPI tells of the routes, and by what one is known."""

from typing import Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.openapi.models import Schema

from gateway.http import forms

KEY = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "bk_…",
    "description": "A key that `baton key create` has made.",
}
READ = (forms.Ask,)  # by a route itself (bodies.py)
FREE = ("/healthz", "/readyz", "/v1/session")  # who has no key may


class Documented(FastAPI):
    """The application, and its document."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema:
            return self.openapi_schema
        document = super().openapi()
        _describe(document)
        document["components"]["securitySchemes"] = {"key": KEY}
        document["security"] = [{"key": []}]
        for place in FREE:
            for operation in document["paths"][place].values():
                operation["security"] = []
        return document


def _describe(document: dict[str, Any]) -> None:
    """Add the bodies that routes read themselves, as FastAPI writes those that it reads."""
    schemas = document["components"]["schemas"]
    for model in READ:
        told = Schema(**model.model_json_schema(ref_template="#/components/schemas/{model}"))
        schemas[model.__name__] = jsonable_encoder(told, by_alias=True, exclude_none=True)
    document["components"]["schemas"] = dict(sorted(schemas.items()))
