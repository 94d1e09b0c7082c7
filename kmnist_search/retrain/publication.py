"""The figures of a finished retraining, and the data of its report."""

from datetime import UTC, datetime

import numpy as np
from optuna.trial import TrialState

from kmnist_search.charts.predictions import Predictions
from kmnist_search.data.catalog import CLASS_NAMES
from kmnist_search.data.search_data import TrainingSet, load_training_set
from kmnist_search.evaluation.metrics import DataFigures, FinalFigures, KeptModel, Metrics, Reproduction, StudyFigures
from kmnist_search.evaluation.scoring import score
from kmnist_search.evaluation.significance import mean_interval, share_interval
from kmnist_search.references.results import known_in
from kmnist_search.report.page import Evidence
from kmnist_search.retrain.conclusion import RetrainingResult
from kmnist_search.retrain.preparation import Preparation
from kmnist_search.saved_model.model import SavedModel
from kmnist_search.study.study import SearchStudy

SAMPLES_A_CLASS = 10
#: Name of the study file beside the report.
STUDY_FILE = "study.toml"


def evidence_of(preparation: Preparation, result: RetrainingResult, kept: SavedModel) -> Evidence:
    """Return the figures, with the images and probabilities that the report shows."""
    probabilities = kept.probabilities(result.test_set.images)
    labels = result.test_set.labels.numpy()
    images = load_training_set(preparation.plan.data.dataset, preparation.data_dir)
    names = [str(name) for name in CLASS_NAMES[preparation.plan.data.dataset]]
    scored = score(probabilities, labels, class_names=names, seed=result.recipe.seeds[0])
    return Evidence(
        metrics=_metrics(preparation, images, result, scored),
        test=Predictions(images=result.test_set.images.numpy(), labels=labels, probabilities=probabilities),
        samples=images.samples(SAMPLES_A_CLASS),
        class_counts=np.bincount(images.labels, minlength=len(names)),
    )


def _metrics(preparation: Preparation, images: TrainingSet, result: RetrainingResult, kept: KeptModel) -> Metrics:
    study, data = preparation.study, preparation.plan.data
    whole = images.split(data.whole())
    return Metrics(
        made_at=datetime.now(UTC),
        study=_study_figures(study),
        data=DataFigures(
            dataset=data.dataset,
            train_images=len(images.labels),
            test_images=len(result.test_set.labels),
            train_digest=whole.digest,
            test_digest=result.test_set.digest,
            mean=whole.mean,
            std=whole.std,
        ),
        candidates=result.candidates,
        paired_test=result.paired_test,
        recipe=result.recipe,
        test=_final_figures(result, kept),
        ledger=result.ledger,
        references=known_in(study.storage),
        reproduction=Reproduction.here(_commands(preparation), device=result.device),
    )


def _commands(preparation: Preparation) -> str:
    """Return the commands that repeat the search and the retraining from the study file."""
    study = preparation.study
    search = f"kmnist-search run {STUDY_FILE} --trials {study.counts().finished}"
    return f"{search}\nkmnist-search best {study.name} --retrain{preparation.options.as_text()}"


def _final_figures(result: RetrainingResult, kept: KeptModel) -> FinalFigures:
    accuracies = [model.test_accuracy for model in result.models]
    images = len(result.test_set.labels)
    # A single division, so that the share equals correct / total to the last digit.
    mean = sum(model.test_correct for model in result.models) / (len(result.models) * images)
    winner = result.candidates[0]
    promised = winner.study_val_accuracy if winner.mean_val_accuracy is None else winner.mean_val_accuracy
    return FinalFigures(
        mean_accuracy=mean,
        seeds_interval=mean_interval(accuracies),
        sampling_interval=share_interval(mean, images),
        val_accuracy=promised,
        gap=promised - mean,
        models=result.models,
        kept=kept,
    )


def _study_figures(study: SearchStudy) -> StudyFigures:
    counts, best, trials = study.counts(), study.complete()[0], study.trials()
    study.with_details(trials)
    finished = [trial for trial in trials if trial.state != TrialState.RUNNING]
    return StudyFigures(
        name=study.name,
        metric=study.metric,
        epochs=study.epochs,
        complete=counts.complete,
        pruned=counts.pruned,
        failed=counts.fail,
        unfinished=counts.running + counts.waiting,
        best_trial=best.number,
        best_value=best.values[0],
        seconds=sum(trial.user_attrs.get("seconds", 0.0) for trial in finished),
    )
