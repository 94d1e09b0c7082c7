"""Proposals for one worker's claimed trials: the sampler, the pruner and the storage they read."""

import optuna
from optuna.trial import Trial

from kmnist_search.config.seeds import derived_seed
from kmnist_search.optuna_internals import trial_id_of
from kmnist_search.queue.queue import TRAINING_KEY, Claim
from kmnist_search.study.cached_storage import CachedStorage
from kmnist_search.study.samplers import Samplers, halving_of, pruner_of
from kmnist_search.study.second_objective import Sizes
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import SearchFile, StudyFile, TrainingSpec


class Proposals:
    """Makes Optuna trials from claims.

    Attributes:
        cached_storage: the study as the sampler and the pruner see it; empty at first.
        halving: what pauses and resumes trials; None if nothing does.
    """

    def __init__(self, study: SearchStudy, file: StudyFile) -> None:
        self.file = file
        maximizes = file.study.direction == "maximize"
        sizes = None
        if isinstance(file, SearchFile) and file.study.second_objective is not None:
            sizes = Sizes(file.num_parameters)
        self.halving = halving_of(file.study.pruner, epochs=file.train.epochs, maximizes=maximizes, sizes=sizes)
        self.cached_storage = CachedStorage(study.queue.study_id, study.direction, pauses=study.pauses)
        self._samplers = Samplers(
            file.study.sampler,
            file.searched,
            epochs=file.train.epochs,
            maximizes=maximizes,
            allows=file.allows if file.is_constrained else None,
            sizes=sizes,
        )

    def trial(self, claim: Claim) -> Trial:
        """Return a claimed trial, which must be in the cached storage. It can then suggest hyperparameters."""
        study = optuna.Study(
            study_name=self.cached_storage.NAME,
            storage=self.cached_storage,
            sampler=self._samplers.sampler(derived_seed(self.file.study.seed, claim.number, 1)),
            pruner=pruner_of(self.file.study.pruner, self.file.train.epochs),
        )
        return Trial(study, claim.trial_id)

    def suggest(self, trial: Trial) -> TrainingSpec:
        """Return what a trial trains: what it was added with, or what the sampler proposes."""
        given = self.cached_storage.get_trial(trial_id_of(trial)).system_attrs.get(TRAINING_KEY)
        return self.file.suggest(trial, given)
