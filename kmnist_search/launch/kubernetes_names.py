"""Checks of the names, images and quantities in manifests, as Kubernetes does them."""

import re

from kmnist_search.errors import ConfigError

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_IMAGE = (
    r"[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*)*"  # host, its port, path
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_QUANTITY = r"([0-9]+(\.[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?"


def check_label(option: str, value: str) -> None:
    """Raise ConfigError unless the value is a valid name of a namespace."""
    if not re.fullmatch(_LABEL, value):
        raise ConfigError(f"{option} {value!r}: Kubernetes allows at most 63 of a-z, 0-9 and -, no - at either end")


def check_name(option: str, value: str) -> None:
    """Raise ConfigError unless the value is a valid name of a secret or a claim."""
    if not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", value) or len(value) > 253:
        raise ConfigError(f"{option} {value!r}: Kubernetes allows names of a-z, 0-9, - and ., such as my-claim")


def check_image(option: str, value: str) -> None:
    """Raise ConfigError unless the value is a reference to an image."""
    if not re.fullmatch(_IMAGE, value):
        raise ConfigError(
            f"{option} {value!r}: is not an image; write it like registry.example.org/me/kmnist-search:0.1.0"
        )


def check_quantity(option: str, value: str) -> None:
    """Raise ConfigError unless the value is a positive amount of cores or memory."""
    match = re.fullmatch(_QUANTITY, value)
    if not match or not float(match[1]):
        raise ConfigError(f"{option} {value!r}: is not an amount; write 4 or 500m for cores, 16Gi for memory")


def safe_name(name: str, *, at_most: int) -> str:
    """Return `name` as Kubernetes accepts it at the beginning of a name; "study" if nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:at_most].strip("-") or "study"


def literal(value: str) -> str:
    """Return an argument or a variable's value, escaped so that Kubernetes expands no variable in it."""
    return value.replace("$", "$$")
