"""Which trials of a study have the same configuration."""

from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial

#: The user attribute that names a trial's configuration: equal if and only if the same is trained.
DIGEST_KEY = "config_digest"


def duplicates(ranked: Sequence[FrozenTrial]) -> Mapping[int, int]:
    """Return, for each trial that has the configuration of a better one, the number of the best such trial.

    A trial without a digest, which another program made, has the configuration of no other.

    Args:
        ranked: best first, with the user attribute `config_digest`.
    """
    first: dict[str, int] = {}
    found = {}
    for trial in ranked:
        digest = trial.user_attrs.get(DIGEST_KEY)
        if digest is not None and first.setdefault(digest, trial.number) != trial.number:
            found[trial.number] = first[digest]
    return found


def distinct(ranked: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials whose configuration no better one has; for the arguments, see `duplicates`."""
    again = duplicates(ranked)
    return [trial for trial in ranked if trial.number not in again]
