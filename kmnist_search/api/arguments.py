"""The check of a method's arguments against its annotations, before any work."""

from collections.abc import Callable
from functools import wraps
from typing import Annotated, ParamSpec, TypeVar

from pydantic import ConfigDict, Field, ValidationError, validate_call

from kmnist_search.config import describe
from kmnist_search.errors import ConfigError

Params = ParamSpec("Params")
Result = TypeVar("Result")

#: A whole number of 1 or more.
Count = Annotated[int, Field(ge=1)]
#: A time above 0.
Seconds = Annotated[float, Field(gt=0)]


def checked(method: Callable[Params, Result]) -> Callable[Params, Result]:
    """Return the method with its arguments checked.

    Raises:
        ConfigError: by the method, if an argument is of another type, or out of its range.
    """
    strict = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(method)

    @wraps(method)
    def call(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        try:
            return strict(*args, **kwargs)
        except ValidationError as error:
            if error.title.rpartition(".")[2] != method.__name__:  # raised in its work
                raise
            raise ConfigError(f"{method.__name__}(): {'; '.join(describe(error))}") from None

    return call
