"""Where the trials of a study were trained, and by which versions, as their workers recorded it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from kmnist_search.queue.attempts import ATTEMPTS_KEY


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A device of a host: the number of trials whose training ended there, and of the processes that worked on these.

    For a CPU, `device` has the number of threads of a process.
    """

    host: str
    device: str
    trials: int
    processes: int


def machines(trials: Sequence[FrozenTrial]) -> list[Machine]:
    """Return the devices, those with most trials first. Trials without a record of theirs are left out."""
    found = defaultdict(list)
    for trial in trials:
        attempts = trial.user_attrs.get(ATTEMPTS_KEY) or [{}]
        if "device" in trial.user_attrs and "host" in attempts[-1]:
            place = str(attempts[-1]["host"]), str(trial.user_attrs["device"])
            found[place].append(attempts[-1].get("pid"))
    return [
        Machine(host=host, device=device, trials=len(pids), processes=len(set(pids)))
        for (host, device), pids in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def versions(trials: Sequence[FrozenTrial]) -> Mapping[str, Sequence[str]]:
    """Return the versions of each package that trials were trained with, in the order of their first use."""
    found: dict[str, dict[str, None]] = {}
    for trial in trials:
        known = trial.user_attrs.get("versions")
        for package, version in known.items() if isinstance(known, Mapping) else ():
            found.setdefault(str(package), {})[str(version)] = None
    return {package: list(each) for package, each in found.items()}
