"""What the trials of a worker share."""

from dataclasses import dataclass

import torch

from kmnist_search.data.search_data import StudyData
from kmnist_search.engine.memory_budget import MemoryBudget
from kmnist_search.study.proposals import Proposals
from kmnist_search.study.study import SearchStudy
from kmnist_search.worker.database_thread import DatabaseThread
from kmnist_search.worker.stop import Stop
from kmnist_search.worker.trial_models import TrialModels


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialContext:
    """What the trials of a worker share; training on a CPU uses at most `cores`, None means all."""

    study: SearchStudy
    data: StudyData
    proposals: Proposals
    database_thread: DatabaseThread
    models: TrialModels
    device: torch.device
    cores: int | None
    memory_budget: MemoryBudget
    stop: Stop
