"""Values that satisfy a JSON schema: made up, or made from data that nearly fits."""

from typing import Any, cast

from dev.standin.messages import JSON

FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "someone@example.com",
    "uri": "https://example.com/",
}


def sample(schema: JSON, *, name: str = "value", root: JSON | None = None) -> Any:
    """A value for the schema, the same one each time. `pattern` is not looked at."""
    root = schema if root is None else root
    schema = _resolved(schema, root)
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    if schema.get("enum"):
        return schema["enum"][0]
    return _typed(schema, name, root)


def fit(data: Any, schema: JSON, *, name: str = "value", root: JSON | None = None) -> Any:
    """The data with what the schema lacks left out and what it misses made up."""
    root = schema if root is None else root
    schema = _resolved(schema, root)
    if isinstance(data, dict) and "properties" in schema:
        return _fit_object(cast(JSON, data), schema, root)
    if isinstance(data, list) and _type(schema) == "array":
        items: JSON = schema.get("items") or {}
        kept = [fit(d, items, name=name, root=root) for d in cast("list[Any]", data)]
        return kept[: schema.get("maxItems", len(kept))]
    return cast(Any, data) if _matches(data, schema) else sample(schema, name=name, root=root)


def _fit_object(data: JSON, schema: JSON, root: JSON) -> JSON:
    properties: dict[str, JSON] = schema["properties"]
    made = {
        key: fit(data[key], part, name=key, root=root)
        if key in data
        else sample(part, name=key, root=root)
        for key, part in properties.items()
        if key in data or key in schema.get("required", ())
    }
    if schema.get("additionalProperties", True) is not False:
        made |= {key: value for key, value in data.items() if key not in properties}
    return made


def _resolved(schema: JSON, root: JSON) -> JSON:
    """The schema with a reference followed, parts of allOf joined, and the first choice taken."""
    while "$ref" in schema:
        target: Any = root
        for part in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
            target = target[part]
        schema = cast(JSON, target)
    for choice in ("anyOf", "oneOf"):
        if schema.get(choice):
            return _resolved(schema[choice][0], root)
    for part in cast("list[JSON]", schema.get("allOf") or []):
        schema = {**schema, **_resolved(part, root)}
    return schema


def _type(schema: JSON) -> str:
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    return str(cast("list[object]", kind)[0] if isinstance(kind, list) else kind)


def _typed(schema: JSON, name: str, root: JSON) -> Any:
    kind = _type(schema)
    if kind == "object":
        parts: dict[str, JSON] = schema.get("properties") or {}
        return {key: sample(part, name=key, root=root) for key, part in parts.items()}
    if kind == "array":
        items: JSON = schema.get("items") or {}
        return [sample(items, name=name, root=root)] * max(1, schema.get("minItems", 1))
    if kind == "string":
        return _text(schema, name)
    least = schema.get("minimum", 1)
    return {"integer": int(least), "number": float(least), "boolean": True}.get(kind)


def _text(schema: JSON, name: str) -> str:
    text = FORMATS.get(str(schema.get("format")), f"A {name.replace('_', ' ')}")
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _matches(data: Any, schema: JSON) -> bool:
    if "enum" in schema:
        return data in schema["enum"]
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
        "array": (list,),
        "object": (dict,),
        "null": (type(None),),
    }
    return isinstance(data, kinds.get(_type(schema), (object,)))
