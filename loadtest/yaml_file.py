"""Settings read from plain YAML and checked field by field, with errors that name the field and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from loadtest.errors import ScenarioError


class Settings(BaseModel):
    """Immutable; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Model = TypeVar("Model", bound=Settings)


def read_settings(
    cls: type[Model], given: str, shipped: Path, what: str, changes: Mapping[str, object] | None = None
) -> tuple[Model, Path]:
    """A YAML file, or the name of one in `shipped`, and where it was found; `name` is the file's where it has none.

    what: the kind of file, for messages; changes: fields to take instead of the file's.
    Raises ScenarioError that names file, field and what is allowed.
    """
    file = Path(given)
    if not file.suffix and not file.exists():
        file = shipped / f"{given}.yaml"
    if not file.is_file():
        names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
        raise ScenarioError(f"no {what} {given!r}; give a YAML file or one of: {names}")
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ScenarioError(f"{file}: not valid YAML ({error})") from None
    if not isinstance(data, dict):
        raise ScenarioError(f"{file}: must be a mapping of the fields of a {what}")
    try:
        return cls.model_validate({"name": file.stem, **data, **(changes or {})}), file
    except ValidationError as error:
        raise ScenarioError(f"{file}: {_explain(error, what)}") from None


def _explain(error: ValidationError, what: str) -> str:
    parts = []
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"]) or what
        parts.append(f"{where}: {problem['msg']} (given: {str(problem['input'])[:60]!r})")
    return "; ".join(parts)
