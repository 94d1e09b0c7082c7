"""The summary of a study as plain values, as `--json` prints it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from optuna.trial import FrozenTrial

from kmnist_search.errors import ConfigError
from kmnist_search.queue.attempts import ATTEMPTS_KEY
from kmnist_search.queue.queue import Counts
from kmnist_search.study.ranking import DIGEST_KEY, SIZE_KEY, duplicates, front, up_to
from kmnist_search.study.status import Progress, Status
from kmnist_search.study.study import SearchStudy
from kmnist_search.study.trial_rows import state_of

#: User attributes about a trial's cost and origin; the others are curves and bookkeeping.
FACTS = (
    DIGEST_KEY,
    SIZE_KEY,
    "flops_per_image",
    "seconds",
    "images_per_second",
    "seed",
    "device",
    "versions",
)
#: Keys of an attempt; the others distinguish processes with the same number.
ATTEMPT_FACTS = ("host", "pid", "began_at", "ended_at", "how", "epochs")


def trial_summary(trial: FrozenTrial, metric: str) -> dict[str, Any]:
    """Return one trial: number, state, metric, hyperparameters, cost and curves."""
    attributes = trial.user_attrs
    return {
        "number": trial.number,
        "state": state_of(trial),
        metric: trial.value,
        "params": trial.params,
        **{fact: attributes.get(fact) for fact in FACTS},
        "attempts": _attempts(attributes.get(ATTEMPTS_KEY, [])),
        "reports": {str(epoch): value for epoch, value in sorted(trial.intermediate_values.items())},
        "curves": {key.removesuffix("_curve"): value for key, value in attributes.items() if key.endswith("_curve")},
    }


def progress_summary(progress: Progress) -> dict[str, Any]:
    """Return how far a study has come."""
    left = progress.time_left(progress.total) if progress.counts.running else None
    return {
        "study": progress.name,
        "metric": progress.metric,
        "trials": {**_counts(progress.counts), "finished": progress.counts.finished, "total": progress.total},
        "paused": progress.paused,
        "best": trial_summary(progress.best, progress.metric) if progress.best else None,
        "trials_per_hour": progress.trials_per_hour,
        "seconds_left": left.total_seconds() if left is not None else None,
    }


def _counts(counts: Counts) -> dict[str, int]:
    return {"failed" if name == "fail" else name: number for name, number in asdict(counts).items()}


def status_summary(status: Status) -> dict[str, Any]:
    """Return the status of a study, with its workers and its running and failed trials."""
    return {
        **progress_summary(status.progress),
        "halt": status.halt,
        "workers": [asdict(worker) for worker in status.workers],
        "running": [{**asdict(running), "attempts": _attempts(running.attempts)} for running in status.running],
        "failures": [asdict(failure) for failure in status.failures],
        "next_hour": asdict(status.outlook) if status.outlook else None,
        "noise": status.noise,
    }


def _attempts(attempts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each attempt's worker, times and ending; None means unknown, or not yet."""
    return [{fact: attempt.get(fact) for fact in ATTEMPT_FACTS} for attempt in attempts]


def best_summary(
    study: SearchStudy, top: int, *, of_each_size: bool = False, max_parameters: int | None = None
) -> dict[str, Any]:
    """Return the `top` best complete trials, best first, with their full configuration.

    Args:
        study: the study.
        top: the most trials.
        of_each_size: only the Pareto front, see `ranking.front`.
        max_parameters: only nets that are not larger.

    Raises:
        NoCompleteTrialError: there is none.
        ConfigError: the trials are planned trainings.
    """
    if study.is_plan:
        raise ConfigError(
            f"study {study.name!r} consists of planned trainings, of different images and epochs: none is the best. "
            f"See: kmnist-search status {study.name}"
        )
    ranked = up_to(max_parameters, study.complete())
    again = duplicates(ranked)
    shown = front([trial for trial in ranked if SIZE_KEY in trial.user_attrs])[::-1] if of_each_size else ranked
    best = shown[:top]
    study.with_details(best)
    return {
        "study": study.name,
        "metric": study.metric,
        "complete": len(ranked),
        "top": [
            {
                "rank": rank,
                **trial_summary(trial, study.metric),
                "duplicate_of": again.get(trial.number),
                "config": trial.user_attrs.get("config"),
            }
            for rank, trial in enumerate(best, start=1)
        ],
    }
