"""Hyperparameter search for patch-MLPs on KMNIST, and the models it ends with.

`load_model` reads a saved model, `preprocess` makes an image file into what it wants.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmnist_search.saved_model.folder import load_model
    from kmnist_search.saved_model.preprocessing import preprocess

__all__ = ["load_model", "preprocess"]


def __getattr__(name: str) -> Any:
    """Import on demand: `load_model` brings torch with it, and no command should wait for that to answer --help."""
    if name == "load_model":
        from kmnist_search.saved_model.folder import load_model

        return load_model
    if name == "preprocess":
        from kmnist_search.saved_model.preprocessing import preprocess

        return preprocess
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
