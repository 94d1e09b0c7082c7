"""The parts that all manifests share: names, labels, security settings, and the connection to the database."""

import re
from typing import Any

from kmnist_search.errors import ConfigError

Manifest = dict[str, Any]

APP = "kmnist-search"
#: The user of the image: not root, and owner of new files on the volumes.
USER_ID = 1000
POSTGRES = f"{APP}-postgres"
DASHBOARD = f"{APP}-dashboard"
#: Keys of the secret: the URL of a database, or the password of the included Postgres.
URL_KEY = "storage"
PASSWORD_KEY = "password"
DATA, CHECKPOINTS, STUDY = "/srv/data", "/srv/checkpoints", "/srv/study"

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_IMAGE = (
    r"[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*)*"  # host, its port, path
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_QUANTITY = r"([0-9]+(\.[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?"


def check_label(option: str, value: str) -> None:
    """Raise ConfigError unless the value is a valid name of a namespace."""
    if not re.fullmatch(_LABEL, value):
        raise ConfigError(f"{option} {value!r}: Kubernetes wants at most 63 of a-z, 0-9 and -, no - at either end")


def check_name(option: str, value: str) -> None:
    """Raise ConfigError unless the value is a valid name of a secret or a claim."""
    if not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", value) or len(value) > 253:
        raise ConfigError(f"{option} {value!r}: Kubernetes wants names of a-z, 0-9, - and ., such as my-claim")


def check_image(option: str, value: str) -> None:
    """Raise ConfigError unless the value is a reference to an image."""
    if not re.fullmatch(_IMAGE, value):
        raise ConfigError(f"{option} {value!r}: is no image; write it like registry.example.org/me/kmnist-search:0.1.0")


def check_quantity(option: str, value: str) -> None:
    """Raise ConfigError unless the value is a positive amount of cores or memory."""
    match = re.fullmatch(_QUANTITY, value)
    if not match or not float(match[1]):
        raise ConfigError(f"{option} {value!r}: is no amount; write 4 or 500m for cores, 16Gi for memory")


def safe_name(name: str, *, at_most: int) -> str:
    """Return `name` as Kubernetes accepts it at the beginning of a name; "study" if nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:at_most].strip("-") or "study"


def literal(value: str) -> str:
    """Return an argument or a variable's value, escaped so that Kubernetes expands no variable in it."""
    return value.replace("$", "$$")


def labels(component: str, instance: str | None = None) -> dict[str, str]:
    found = {"app.kubernetes.io/name": APP, "app.kubernetes.io/component": component}
    return found if instance is None else {**found, "app.kubernetes.io/instance": instance}


def metadata(name: str, namespace: str | None, labelled: dict[str, str], **more: Any) -> Manifest:
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labelled, **more}


def container_rights() -> Manifest:
    """Return every container's security context: no privileges, and write access to volumes only."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_basis(user_id: int) -> Manifest:
    """Return the base of every pod: a user who is not root, and no access to the cluster's API."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # the variables of services would begin with KMNIST_SEARCH_, as the options' do
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user_id,
            "runAsGroup": user_id,
            "fsGroup": user_id,
            "fsGroupChangePolicy": "OnRootMismatch",  # else every pod would walk through all checkpoints first
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def from_secret(variable: str, secret: str, key: str) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def database_environment(secret: str, *, own_postgres: bool) -> list[Manifest]:
    """Return the variables that hold the connection to the database; secrets come by reference."""
    if not own_postgres:
        return [from_secret("KMNIST_SEARCH_STORAGE", secret, URL_KEY)]
    return [
        {"name": "KMNIST_SEARCH_STORAGE", "value": f"postgresql://kmnist@{POSTGRES}:5432/kmnist"},
        from_secret("PGPASSWORD", secret, PASSWORD_KEY),
    ]


def cache_environment() -> list[Manifest]:
    """Return the variables that send all caches of libraries to the one writable folder."""
    folders = {"HOME": "/tmp", "TRITON_CACHE_DIR": "/tmp/triton", "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor"}
    return [{"name": name, "value": folder} for name, folder in folders.items()]


def temporary(name: str = "tmp") -> Manifest:
    """Return a volume that is deleted with its pod."""
    return {"name": name, "emptyDir": {}}


def mount(name: str, path: str, *, read_only: bool = False) -> Manifest:
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}
