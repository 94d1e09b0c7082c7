"""The conclusion of a retraining whose trainings are finished: the final models are tested once each."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from kmnist_search.data.test_set import SealedSet
from kmnist_search.errors import TrainingDivergedError
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import Candidate, FinalModel, Opening, PairedTest, Recipe
from kmnist_search.evaluation.testing import Examination
from kmnist_search.evaluation.trained import Trained, kept
from kmnist_search.retrain.choice import Choice
from kmnist_search.retrain.retraining import Retraining
from kmnist_search.saved_model.packed import PackedModel
from kmnist_search.worker.trial_models import TrialModels

#: The final trainings in the order of their seeds, each with its model.
FinalTrainings = Sequence[tuple[Trained, PackedModel]]


@dataclass(frozen=True, kw_only=True)
class ModelTested:
    """A final model was tested now, or earlier if `from_ledger`."""

    model: FinalModel
    from_ledger: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrainingResult:
    """The result of a finished retraining.

    Attributes:
        candidates: the winner first.
        models: final models, in the order of the recipe's seeds; the first is kept.
        packed: the same models as they are saved.
        ledger: every look at the test set for this study.
        test_set: the test set.
        device: that the kept model was trained on.
    """

    candidates: tuple[Candidate, ...]
    paired_test: PairedTest | None
    recipe: Recipe
    models: tuple[FinalModel, ...]
    packed: tuple[PackedModel, ...]
    ledger: tuple[Opening, ...]
    test_set: SealedSet
    device: str


def final_models(retraining: Retraining, choice: Choice, store: TrialModels) -> FinalTrainings | None:
    """Return the final trainings and their models; None if the model of one is gone, which then must be trained again.

    Raises:
        TrainingsFailedError: not all are trained.
        TrainingDivergedError: a final model's loss is no longer finite.
    """
    trained = retraining.finished(retraining.plan.finals(choice.winner))
    for each in trained:
        if each.diverged:
            raise TrainingDivergedError(
                f"the loss of the final model with seed {each.seed} is not finite in epoch {len(each.epochs) + 1}. "
                "The test set was not opened. Choose among more candidates (--top) or with more reruns (--reruns)."
            )
    models = kept(retraining.companion, trained, store)
    if len(models) < len(trained):
        return None
    return [(each, models[each.number]["last"]) for each in trained]


def concluded(
    retraining: Retraining, choice: Choice, finals: FinalTrainings
) -> Generator[ModelTested, None, RetrainingResult]:
    """Test the final models one after the other, and return the result."""
    examination = Examination(Ledger(retraining.source), [retraining.recipe(choice)], retraining.data.data_dir)
    models = []
    for trained, packed in finals:
        look = examination.look(packed)
        opening = look.opening
        assert opening.correct is not None
        assert opening.accuracy is not None
        assert opening.loss is not None
        models.append(
            FinalModel(
                seed=trained.seed,
                weights_sha256=packed.info.weights_sha256,
                seconds=trained.seconds,
                epochs=trained.epochs,
                opened_at=opening.opened_at,
                test_correct=opening.correct,
                test_accuracy=opening.accuracy,
                test_loss=opening.loss,
            )
        )
        yield ModelTested(model=models[-1], from_ledger=look.from_ledger)
    return RetrainingResult(
        candidates=choice.candidates,
        paired_test=choice.paired_test,
        recipe=examination.recipes[0],
        models=tuple(models),
        packed=tuple(packed for _, packed in finals),
        ledger=tuple(examination.ledger.openings()),
        test_set=examination.test_set(retraining.plan.data.dataset),
        device=finals[0][0].device,
    )
