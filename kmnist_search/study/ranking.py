"""Which trials of a study have the same configuration, and which are the best of their size."""

from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial

from kmnist_search.errors import NoCompleteTrialError

#: The user attribute with the digest of a trial's configuration: equal if and only if the training is the same.
DIGEST_KEY = "config_digest"
#: The user attribute with the number of a trial's parameters.
SIZE_KEY = "num_parameters"


def duplicates(ranked: Sequence[FrozenTrial]) -> Mapping[int, int]:
    """Return, for each trial whose configuration a better trial has, the number of the best such trial.

    A trial without a digest was made by another program and counts as unique.

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
    """Return the trials without those whose configuration a better trial has. Arguments as for `duplicates`."""
    again = duplicates(ranked)
    return [trial for trial in ranked if trial.number not in again]


def up_to(max_parameters: int | None, ranked: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials whose nets have at most `max_parameters`; all if that is None.

    Raises:
        NoCompleteTrialError: there is none.
    """
    if max_parameters is None:
        return list(ranked)
    known = [trial for trial in ranked if SIZE_KEY in trial.user_attrs]
    small = [trial for trial in known if trial.user_attrs[SIZE_KEY] <= max_parameters]
    if not small:
        smallest = min((trial.user_attrs[SIZE_KEY] for trial in known), default=None)
        has = (
            "none has a known size" if smallest is None else f"the smallest has {smallest:,}. Allow more, or add trials"
        )
        raise NoCompleteTrialError(f"no complete trial has a net of at most {max_parameters:,} parameters: {has}")
    return small


def front(ranked: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the Pareto front of size and value: each trial that is smaller than all better ones, smallest first.

    Args:
        ranked: best first, all with the attribute "num_parameters".
    """
    found: list[FrozenTrial] = []
    for trial in ranked:
        if found and trial.user_attrs[SIZE_KEY] >= found[-1].user_attrs[SIZE_KEY]:
            continue
        if found and trial.values[0] == found[-1].values[0]:
            found.pop()  # as good, and larger
        found.append(trial)
    return found[::-1]
