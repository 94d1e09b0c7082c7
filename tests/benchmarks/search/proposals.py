"""Benchmark of samplers: the CPU seconds of a proposal, by the trials that are over and those that run.

    python tests/benchmarks/search/proposals.py

The curves are made up; the space is that of kmnist.toml. Set OMP_NUM_THREADS=1, as a worker process does on one core.
"""

import sys
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

sys.path.insert(0, str(Path(__file__).parents[3]))

from kmnist_search.study.samplers import Samplers, varied_in
from kmnist_search.study_file.schema import SamplerConfig
from tests.benchmarks.search.ways import EPOCHS, SPACE

OVER, RUNNING = (50, 100, 200, 400), (0, 1, 8, 48)


def study_of(over: int, running: int) -> optuna.Study:
    """Return a study with so many trials, whose hyperparameters are drawn at random."""
    draw, space = np.random.default_rng(0), varied_in(SPACE)
    at_random, frozen = optuna.samplers.RandomSampler(seed=0), create_trial(value=0.0)
    study = optuna.create_study(direction="maximize", sampler=at_random)
    for number in range(over + running):
        params = {name: at_random.sample_independent(study, frozen, name, spec) for name, spec in space.items()}
        off = np.log(params["learning_rate"] / 3e-3)
        reports = {epoch: 1 - 0.1 * (1 + off**2) * (1 + 0.1 * draw.normal()) / epoch**0.5 for epoch in range(1, 10)}
        is_over = number < over
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_over else TrialState.RUNNING,
                params=params,
                distributions=space,
                value=reports[EPOCHS] if is_over else None,
                intermediate_values=reports if is_over else {},
            )
        )
    return study


def seconds(samplers: Samplers, study: optuna.Study) -> float:
    """Return the CPU seconds of one proposal for the next trial."""
    study.ask()
    trial, began = study.trials[-1], time.process_time()
    samplers.sampler(trial.number).sample_relative(study, trial, varied_in(SPACE))
    return time.process_time() - began


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in ("tpe", "gp"):
        samplers = Samplers(SamplerConfig.model_validate({"name": name}), SPACE, epochs=EPOCHS, maximizes=True)
        seconds(samplers, study_of(20, 0))  # imports what it needs
        for over in OVER:
            for running in RUNNING:
                found = seconds(samplers, study_of(over, running))
                print(f"{name}: {over} over, {running} running: {found:.2f} s", flush=True)


if __name__ == "__main__":
    main()
