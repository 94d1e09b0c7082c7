"""Trials that are computed together on a GPU, because they train one configuration with several seeds.

Each is a trial of its own, with its lease, its curve and its end; only the steps are computed together.
"""

from collections.abc import Sequence

from kmnist_search.engine.backends import uses_triton
from kmnist_search.engine.training import Training, trainings_together
from kmnist_search.queue.queue import TRAINING_KEY, Claim
from kmnist_search.study_file.schema import TrainingSpec
from kmnist_search.worker.context import TrialContext


class Together:
    """The trainings of several claimed trials, built when the first of them begins.

    Attributes:
        is_built: whether they hold memory.
        size: the number of those that have not ended.
    """

    def __init__(self, context: TrialContext, claims: Sequence[Claim]) -> None:
        self.context, self._claims = context, list(claims)
        self._trainings: dict[int, Training] = {}

    @property
    def is_built(self) -> bool:
        return bool(self._trainings)

    @property
    def size(self) -> int:
        return len(self._claims)

    def leave(self, claim: Claim) -> None:
        """Let the others go on without a trial that has ended, whether or not it began to train."""
        self._claims.remove(claim)
        if self._trainings:
            self._trainings[claim.trial_id].leave()

    def training(self, claim: Claim) -> Training:
        """Return the training of one of the trials."""
        if not self._trainings:
            specs = [spec for spec in (planned(self.context, each) for each in self._claims) if spec is not None]
            trainings = trainings_together(
                specs[0].config,
                [self.context.data.of(spec.data) for spec in specs],
                seeds=[spec.seed or 0 for spec in specs],
                device=self.context.device,
            )
            ids = (each.trial_id for each in self._claims)
            self._trainings = dict(zip(ids, trainings, strict=True))
        return self._trainings[claim.trial_id]


def planned(context: TrialContext, claim: Claim) -> TrainingSpec | None:
    """Return the training that a claimed trial was added with; None if it is to be proposed."""
    given = context.proposals.cached_storage.get_trial(claim.trial_id).system_attrs.get(TRAINING_KEY)
    return None if given is None else TrainingSpec.model_validate(given)


def room_beside(context: TrialContext, claim: Claim) -> int:
    """Return how many more trainings can be computed together with that of a claimed trial; 0 if none should be.

    One that was tried before trains alone: its checkpoint may be of another step than those of the others.
    """
    spec = planned(context, claim) if context.device.type == "cuda" and claim.attempt == 1 else None
    if spec is None or "best" in spec.keeps or not uses_triton(spec.config, context.device, "auto"):
        return 0
    needed = context.memory_budget.estimate(spec.config, context.data.of(spec.data))
    return max(context.memory_budget.capacity() // needed - 1, 0)
