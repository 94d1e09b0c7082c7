"""Hyperparameter search for patch-MLPs on KMNIST, and the models it ends with."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmnist_search.api.study import Study
    from kmnist_search.api.winner import Winner
    from kmnist_search.errors import KmnistSearchError
    from kmnist_search.saved_model.folder import load_model
    from kmnist_search.saved_model.model import Prediction, SavedModel
    from kmnist_search.saved_model.preprocessing import preprocess

    __version__: str

__all__ = [
    "KmnistSearchError",
    "Prediction",
    "SavedModel",
    "Study",
    "Winner",
    "__version__",
    "load_model",
    "preprocess",
]

_HOMES = {
    "KmnistSearchError": "kmnist_search.errors",
    "Prediction": "kmnist_search.saved_model.model",
    "SavedModel": "kmnist_search.saved_model.model",
    "Study": "kmnist_search.api.study",
    "Winner": "kmnist_search.api.winner",
    "load_model": "kmnist_search.saved_model.folder",
    "preprocess": "kmnist_search.saved_model.preprocessing",
}


def __getattr__(name: str) -> Any:
    """Import on demand: these names bring torch with them, and no command should wait for that to answer --help."""
    if name == "__version__":
        return version("kmnist-search")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
