"""The study files that come with the package. Knows nothing of what is in them."""

import difflib
from pathlib import Path

from kmnist_search.errors import StudyFileError


def builtin_studies() -> dict[str, Path]:
    """Return the built-in study files by name."""
    package = Path(__file__).parent
    # Installed, they lie in the package; in a checkout (and an editable install) beside it.
    folder = next(path for path in (package / "studies", package.parent / "studies") if path.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)}


def find_study_file(name_or_path: str) -> Path:
    """Return the path of a built-in study or of the user's own file.

    Raises:
        StudyFileError: it is neither.
    """
    builtin = builtin_studies()
    if name_or_path in builtin:
        return builtin[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise StudyFileError(f"there is no study file {path.resolve()}. Built in are: {', '.join(builtin)}.")
    nearest = difflib.get_close_matches(name_or_path, builtin, n=1)
    advice = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise StudyFileError(
        f"{name_or_path!r} is neither a built-in study nor a file.{advice} Built in are: {', '.join(builtin)}."
    )
