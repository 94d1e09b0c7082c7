"""Settings of a study in words."""

import pytest

from kmnist_search.study_file.description import condition_text, pruner_text, sampler_text, scale_text, values_text
from kmnist_search.study_file.schema import PrunerConfig, SamplerConfig, StudyTable
from kmnist_search.study_file.space import Choices, FloatRange, Hyperparameter, IntRange


@pytest.mark.parametrize(
    ("spec", "values", "scale"),
    [
        (Choices(choices=(32, 64)), "32, 64", "ordered list"),
        (Choices(choices=("relu", "gelu")), "relu, gelu", "list"),
        (IntRange(low=1, high=9, step=2), "1 to 9, by 2", "linear"),
        (IntRange(low=1, high=512, log=True), "1 to 512", "log"),
        (FloatRange(low=1e-4, high=1e-2, log=True), "0.0001 to 0.01", "log"),
        (FloatRange(low=0, high=1, step=0.25), "0 to 1, by 0.25", "linear"),
    ],
)
def test_a_range_has_its_values_and_its_scale(spec: Hyperparameter, values: str, scale: str) -> None:
    assert (values_text(spec), scale_text(spec)) == (values, scale)


def test_a_condition_names_what_it_depends_on_and_whether_each_block_has_its_own() -> None:
    momentum = FloatRange(low=0, high=1, when={"optimizer": ("sgd",), "num_blocks": (2, 3)})
    assert condition_text(momentum) == "if optimizer is sgd and num_blocks is 2 or 3"
    assert condition_text(Choices(choices=(64, 128), each_block=True)) == "for each block"
    assert condition_text(Choices(choices=(64, 128))) == ""


def test_each_sampler_and_each_pruner_says_what_it_does() -> None:
    def by(sampler: SamplerConfig, **more: str) -> str:
        return sampler_text(StudyTable.model_validate({"name": "s", "sampler": sampler, **more}))

    assert by(SamplerConfig(name="random")) == "configurations are random"
    assert by(SamplerConfig(name="tpe", startup_trials=1)) == "TPE proposes configurations after 1 random trial"
    small = by(SamplerConfig(), second_objective="parameters")
    assert small.endswith("after 10 random trials, and seeks the best net of each size")
    assert pruner_text(PrunerConfig(), 27) == "trials pause first after 9 epochs, and about one in 3 goes on"
    assert pruner_text(PrunerConfig(name="median"), 27) == "the median pruner ends trials after 9 epochs or more"
    assert pruner_text(PrunerConfig(name="none"), 27) == "every trial trains to its end"
