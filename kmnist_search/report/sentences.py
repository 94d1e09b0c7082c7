"""Sentences about the figures of a final model."""

from kmnist_search.data.catalog import title_of
from kmnist_search.evaluation.metrics import Metrics
from kmnist_search.wording import count, interval, percent, points


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
        f"95 % interval over seeds: {interval(test.seeds_interval)} (of the mean, by Student's t)."
        if test.seeds_interval
        else "How much the seed matters is not known from one model."
    )
    over_images = f"95 % interval over test images, had others been drawn: {interval(test.sampling_interval)} (Wilson)."
    return [over_seeds, over_images]


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
        f"The model that is kept is that of seed {metrics.test.kept.seed}, the first of the recipe, decided before "
        f"any look: {percent(metrics.test.kept.test_accuracy)}."
    )


def looks(metrics: Metrics) -> str:
    """Say how often the test set was used."""
    recipes = count(metrics.recipes_tested, "recipe")
    return f"For this study the test set was looked at {count(len(metrics.ledger), 'time')}, by {recipes}."


def warning(metrics: Metrics) -> str:
    """Say that the test set was used before; empty if it was not."""
    if metrics.recipes_tested <= 1:
        return ""
    return (
        f"{metrics.recipes_tested} recipes have seen the test set. Whoever chooses among them chooses by test images, "
        "so the figure flatters: it is no longer that of untouched images."
    )


def luck(metrics: Metrics) -> str:
    """Say how much of the study's best score was selection luck."""
    best = metrics.study.best_trial
    candidate = next((each for each in metrics.candidates if each.trial == best), None)
    if candidate is None or candidate.luck is None or candidate.mean_val_accuracy is None:
        return "How much of the study's best score was luck is not known: its trial was not trained again."
    had = (
        f"The best trial of the study, trial {best}, had {percent(candidate.study_val_accuracy)} there and "
        f"{percent(candidate.mean_val_accuracy)} on the mean of {count(len(candidate.reruns), 'rerun')}"
    )
    if candidate.luck <= 0:
        return f"{had}: the reruns bear its score out."
    return f"{had}: {points(candidate.luck)} points of its score may have been luck."


def paired_test(metrics: Metrics) -> str:
    """Say whether the winner is better than the runner-up."""
    test = metrics.paired_test
    if test is None:
        return "There was one candidate, so there was nothing to choose."
    if test.mean_difference == 0:
        return f"Trials {test.winner} and {test.runner_up} have the same mean; the study had ranked the first higher."
    above = "above" if test.mean_difference >= 0 else "below"
    difference = (
        f"On the mean of its reruns trial {test.winner} is {100 * abs(test.mean_difference):.2f} points {above} trial "
        f"{test.runner_up}"
    )
    if test.p_value is None:
        return f"{difference}; from so few reruns it cannot be said whether that is chance."
    p_value = f"p = {test.p_value:.2g}, {test.method}"
    if test.distinguishable:
        return f"{difference}, more than chance explains ({p_value})."
    return f"{difference}, which chance alone may explain ({p_value}): by these reruns the two cannot be told apart."


def comparison() -> str:
    """Say how our figure differs from the published ones."""
    return (
        "The published systems chose their settings by looking at the test images, which flatters their figures. Ours "
        "were chosen on validation images; the test set was opened after the recipe was frozen."
    )


def reproduction() -> str:
    """Say how the published systems were retrained, and with what results."""
    return (
        "The published figures are the best that was seen on the test images, or chosen by them. Ours are means over "
        "seeds of models that have each seen the test images once, when nothing was left to choose: after the last "
        "epoch, and after the epoch that was best on validation images, which were held out of the training images."
    )
