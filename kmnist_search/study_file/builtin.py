"""The built-in study files."""

import difflib
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from kmnist_search.errors import StudyFileError


def builtin_studies() -> dict[str, Path]:
    """Return the built-in study files by name, such as "kmnist" or "references/s0"."""
    package = Path(__file__).parents[1]
    # They lie in the installed package, or beside it in a checkout.
    folder = next(path for path in (package / "studies", package.parent / "studies") if path.is_dir())
    names = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.toml")}
    return dict(sorted(names.items(), key=lambda item: ("/" in item[0], item[0])))


def _listed(names: Collection[str]) -> str:
    """Return names for a message; those in folders are only counted."""
    folders = Counter(folder for folder, slash, _ in (name.rpartition("/") for name in names) if slash)
    alone = [name for name in names if "/" not in name]
    return ", ".join([*alone, *(f"{folder}/... ({number})" for folder, number in folders.items())])


def find_study_file(name_or_path: str) -> Path:
    """Return the path of a built-in study, or of the user's own file.

    Raises:
        StudyFileError: there is neither.
    """
    builtin = builtin_studies()
    if name_or_path in builtin:
        return builtin[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    if inside := [name for name in builtin if name.startswith(f"{name_or_path}/")]:
        raise StudyFileError(
            f"{name_or_path!r} is a folder of built-in studies: {', '.join(inside)}. "
            f"All of them at once: kmnist-search {name_or_path}"
        )
    if path.suffix or (len(path.parts) > 1 and path.parts[0] not in {name.partition("/")[0] for name in builtin}):
        raise StudyFileError(f"there is no study file {path.resolve()}. The built-in studies are: {_listed(builtin)}.")
    nearest = difflib.get_close_matches(name_or_path, builtin, n=1)
    advice = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise StudyFileError(
        f"{name_or_path!r} is neither a built-in study nor a file.{advice} "
        f"The built-in studies are: {_listed(builtin)}."
    )
