"""Pieces of the API's description (OpenAPI) that the doors share: bodies that are read by hand, and errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

_DEFS = "$defs"


class ErrorObject(BaseModel):
    """What went wrong, as OpenAI's API says it."""

    message: str = Field(description="with what is allowed, where the request was wrong")
    type: str
    param: str | None = Field(description="the field that is wrong")
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorObject


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "the request cannot be answered; says why, and what is allowed"},
    "5XX": {"model": ErrorBody, "description": "the service failed, or cannot answer now"},
}


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema in one piece: definitions beside it would be looked for at the document's root."""
    schema = model.model_json_schema()
    definitions = schema.pop(_DEFS, {})
    whole: dict[str, Any] = _inlined(schema, definitions)
    return whole


def _inlined(part: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inlined(one, definitions) for one in part]
    if not isinstance(part, dict):
        return part
    rest = {name: _inlined(value, definitions) for name, value in part.items() if name != "$ref"}
    if "$ref" not in part:
        return rest
    definition = definitions[part["$ref"].removeprefix(f"#/{_DEFS}/")]
    return {**_inlined(definition, definitions), **rest}
