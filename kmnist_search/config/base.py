"""The base class of all configurations: a frozen value that checks itself, with the types of common fields."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kmnist_search.errors import ConfigError

Size = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Config(BaseModel):
    """A frozen value that refuses unknown names and values of the wrong type.

    Raises:
        ConfigError: a name or a value is wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError("; ".join(describe(error))) from None

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits, the same for equal configurations."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def describe(error: ValidationError) -> list[str]:
    """Return one line for each problem that pydantic found: the key, the problem and the given value."""
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        given = "" if isinstance(problem["input"], dict) else f", got {problem['input']!r}"
        lines.append(f"{key}: {message}{given}" if key else f"{message}{given}")
    return lines
