"""Figures as people read them."""

from datetime import timedelta

import pytest

from kmnist_search import wording


@pytest.mark.parametrize(
    ("share", "text"), [(0.96974, "96.97 %"), (1.0, "100.00 %"), (0.0, "0.00 %"), (float("nan"), "nan %"), (None, "")]
)
def test_a_share_is_shown_as_percent_with_two_decimals(share: float | None, text: str) -> None:
    assert wording.percent(share) == text


def test_an_interval_names_the_unit_once() -> None:
    assert wording.interval((0.9, 0.95)) == "90.00 to 95.00 %"


def test_differences_have_a_sign_unless_they_round_to_nothing() -> None:
    assert [wording.points(each) for each in (0.0123, -0.0123, 0.00001)] == ["+1.23", "\N{MINUS SIGN}1.23", "0.00"]


@pytest.mark.parametrize(
    ("metric", "number", "text"),
    [
        ("val_accuracy", 0.9569, "val_accuracy 95.69 %"),
        ("val_loss", 0.12344, "val_loss 0.1234"),
        ("val_loss", float("inf"), "val_loss inf"),
        ("val_accuracy", None, ""),
    ],
)
def test_accuracies_are_shown_as_percent_and_losses_as_they_are(metric: str, number: float | None, text: str) -> None:
    assert wording.named_metric(metric, number) == text
    assert wording.metric_text(metric, number) == text.removeprefix(f"{metric} ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (3.14, "3.1 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (155, "2 min 35 s"),
        (750, "12 min"),
        (9000, "2 h 30 min"),
        (190_000, "2 days 4 h"),
        (None, ""),
    ],
)
def test_durations_are_shown_in_their_two_largest_units(seconds: float | None, text: str) -> None:
    assert wording.duration_text(seconds) == text
    if seconds is not None:
        assert wording.duration_text(timedelta(seconds=seconds)) == text


def test_hyperparameters_are_shown_on_one_line() -> None:
    assert wording.shown_params({"learning_rate": 0.00599973, "dim": 64, "norm": "batch"}) == (
        "learning_rate=0.006 dim=64 norm=batch"
    )


def test_a_count_agrees_with_its_number() -> None:
    assert [wording.count(number, "trial") for number in (1, 2000)] == ["1 trial", "2,000 trials"]
