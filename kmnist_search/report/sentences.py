"""Sentences about the figures of a final model."""

from kmnist_search.data.catalog import title_of
from kmnist_search.evaluation.metrics import Metrics
from kmnist_search.wording import count, interval, percent, points

COMPARISON = (
    "The settings of the published systems were chosen on the test images, so their accuracies are too optimistic. "
    "Ours were chosen on validation images; the test set was opened only after the recipe was frozen."
)
REPRODUCTION = (
    "The published accuracies are the best ones seen on the test images, or were chosen by them. Ours are means over "
    "seeds. Each of our models was tested once, with nothing left to choose: after the last epoch, and after the epoch "
    "that was best on validation images, which were held out of the training images."
)


def mean(metrics: Metrics) -> str:
    """Say what the headline figure is the mean of."""
    models = len(metrics.test.models)
    test_images = f"{metrics.data.test_images:,} test images of {title_of(metrics.data.dataset)}"
    if models == 1:
        return f"One model, trained on all training images, on {test_images}."
    return f"Mean of {models} models that differ in their seed, trained on all training images, on {test_images}."


def intervals(metrics: Metrics) -> list[str]:
    """Say how far chance may have shifted the headline figure."""
    test = metrics.test
    over_seeds = (
        f"95 % interval of the mean over seeds: {interval(test.seeds_interval)} (Student's t)."
        if test.seeds_interval
        else "One model does not show how much the seed matters."
        if len(test.models) == 1
        else "All models had the same accuracy, which does not show how much the seed matters."
    )
    return [over_seeds, f"95 % interval for this number of test images: {interval(test.sampling_interval)} (Wilson)."]


def promise(metrics: Metrics) -> str:
    """Compare the validation accuracy with the test accuracy."""
    gap = metrics.test.gap
    promised = f"Validation promised {percent(metrics.test.val_accuracy)}"
    if round(100 * gap, 2) == 0:
        return f"{promised}, and the test set gave the same."
    return f"{promised}; the test set gave {100 * abs(gap):.2f} points {'less' if gap > 0 else 'more'}."


def kept(metrics: Metrics) -> str:
    """Say which model was kept, and its own accuracy."""
    return (
        f"The kept model has seed {metrics.test.kept.seed}, the first of the recipe. This was decided before any look "
        f"at the test set. Its accuracy: {percent(metrics.test.kept.test_accuracy)}."
    )


def looks(metrics: Metrics) -> str:
    """Say how often the test set was used."""
    times, recipes = count(len(metrics.ledger), "time"), count(metrics.recipes_tested, "recipe")
    return f"For this study, the test set was looked at {times}, by models of {recipes}."


def warning(metrics: Metrics) -> str:
    """Say that more than one recipe was tested; empty if only one was."""
    if metrics.recipes_tested <= 1:
        return ""
    return (
        f"To choose among these {metrics.recipes_tested} recipes is to choose by test images, so the accuracy is too "
        "optimistic."
    )


def luck(metrics: Metrics) -> str:
    """Say how much of the study's best score was selection luck."""
    best = metrics.study.best_trial
    candidate = next((each for each in metrics.candidates if each.trial == best), None)
    if candidate is None or candidate.luck is None or candidate.mean_val_accuracy is None:
        return "How much of the study's best score was luck is not known: its trial was not rerun."
    had = (
        f"The best trial of the study, trial {best}, had {percent(candidate.study_val_accuracy)} there and a mean of "
        f"{percent(candidate.mean_val_accuracy)} over {count(len(candidate.reruns), 'rerun')}"
    )
    epochs = {len(rerun.epochs) for rerun in candidate.reruns if rerun.val_loss is not None}
    if metrics.study.epochs is not None and epochs - {metrics.study.epochs}:
        return f"{had}, which had other epochs: how much of its score was luck is not known."
    if candidate.luck <= 0:
        return f"{had}{': the reruns confirm its score.' if len(candidate.reruns) > 1 else ', which is no less.'}"
    return f"{had}: {points(candidate.luck)} points of its score may have been luck."


def other_epochs(metrics: Metrics) -> str:
    """Say that scores after different numbers of epochs are compared; empty if all are the same."""
    reruns = {len(rerun.epochs) for candidate in metrics.candidates for rerun in candidate.reruns if rerun.val_loss}
    epochs = {"trial": metrics.study.epochs, "rerun": max(reruns, default=None), "final model": metrics.recipe.epochs}
    known = {what: number for what, number in epochs.items() if number is not None}
    if len(set(known.values())) == 1:
        return ""
    counts = ", ".join(f"{number} for a {what}" for what, number in known.items())
    return f"The numbers of epochs differ ({counts}), so the scores differ for that, too."


def paired_test(metrics: Metrics) -> str:
    """Say whether the winner is better than the runner-up."""
    test = metrics.paired_test
    if test is None:
        return "There was only one candidate."
    if test.mean_difference == 0:
        return f"Trials {test.winner} and {test.runner_up} have the same mean; the first was better in the study."
    difference = (
        f"By the mean of the reruns, trial {test.winner} is {100 * test.mean_difference:.2f} points better than trial "
        f"{test.runner_up}"
    )
    if test.p_value is None:
        return f"{difference}. There are too few reruns to test whether this is chance."
    significant = "is" if test.distinguishable else "is not"
    return f"{difference}. The difference {significant} significant (p = {test.p_value:.2g}, {test.method})."
