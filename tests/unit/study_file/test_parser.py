"""Tests of study_file/parser.py: what a study file gives, and the exact message for each mistake in one."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kmnist_search.config import HYPERPARAMETERS, AugmentConfig, OptimizerConfig, PatchMLPConfig, cost
from kmnist_search.errors import StudyFileError
from kmnist_search.study_file.builtin import builtin_studies, find_study_file
from kmnist_search.study_file.parser import load, loads
from kmnist_search.study_file.schema import PrunerConfig, SamplerConfig, SearchFile
from kmnist_search.study_file.space import Choices, FloatRange, IntRange
from kmnist_search.study_file.writer import as_toml

BLOCKS = "[space]\nnum_blocks = { low = 1, high = 3 }\nchannel_width = { choices = [32, 64], each_block = true }\n"
OPTIMIZERS = "[space]\noptimizer = { choices = ['adamw', 'sgd'] }\n"
SET_ADVICE = "write it as table.key=value, for example --set train.epochs=5"


class Recorder:
    """A trial that answers each call with a value fixed beforehand and remembers what it was asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: dict[str, tuple[Any, ...]] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked[name] = ("categorical", tuple(choices))
        return self.answers[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.asked[name] = ("int", low, high, step, log)
        answer = self.answers[name]
        assert isinstance(answer, int)
        return answer

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.asked[name] = ("float", low, high, step, log)
        answer = self.answers[name]
        assert isinstance(answer, float)
        return answer


class Queue:
    """A queue that remembers what is tried first."""

    first: Sequence[Any] = ()

    def fill(self, budget: int, first: Sequence[Any] = ()) -> int:
        self.first = first
        return budget

    def add(self, trainings: Sequence[Any]) -> int:
        raise AssertionError("a search plans no trainings")


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str, *overrides: str) -> SearchFile:
    return load(written(folder, text), overrides=overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Tables and keys.
        ("[stud]", "there is no table [stud]. Did you mean 'study'?"),
        (
            "[zzzz]",
            "there is no table [zzzz]. There are: study, data, train, retrain, constraints, fixed, space, enqueue.",
        ),
        ("study = 3", "[study] must be a table."),
        ("[[space]]", "[space] must be a table."),
        ("[train]\nepoch = 3", "[train] has no key 'epoch'. Did you mean 'epochs'?"),
        ("[train]\nzzzz = 3", "[train] has no key 'zzzz'. There are: epochs, precision."),
        ("[data]\nset = 'digits'", "[data] has no key 'set'. Did you mean 'dataset'?"),
        ("[study]\nsamplr = 'tpe'", "[study] has no key 'samplr'. Did you mean 'sampler'?"),
        # Names of hyperparameters.
        (
            "[space]\nlearning_rat = { low = 1e-3, high = 1e-2 }",
            "[space] has no hyperparameter 'learning_rat'. Did you mean 'learning_rate'?",
        ),
        ("[fixed]\ndimm = 3", "[fixed] has no hyperparameter 'dimm'. Did you mean 'dim'?"),
        (
            "[fixed]\nqqqqqq = 3",
            f"[fixed] has no hyperparameter 'qqqqqq'. There are: {', '.join(HYPERPARAMETERS)}.",
        ),
        (
            "[space]\ndim = { low = 1, high = 3 }\n[fixed]\ndim = 3",
            "[space] dim is also in [fixed]. Keep one of the two.",
        ),
        # The shape of a search space.
        (
            "[space]",
            "[space] is empty. Name a hyperparameter to search, or leave the table out to train [fixed] alone.",
        ),
        ("[space]\ndim = 64", "[space] dim needs { choices = [...] } or { low = ..., high = ... }, got 64."),
        ("[space]\ndim = {}", "[space] dim needs { choices = [...] } or { low = ..., high = ... }, got {}."),
        ("[space]\ndim = { low = 1 }", "[space] dim has no 'high'."),
        ("[space]\ndim = { high = 1 }", "[space] dim has no 'low'."),
        ("[space]\ndim = { lo = 1, high = 3 }", "[space] dim has no key 'lo'. Did you mean 'low'?"),
        (
            "[space]\ndim = { qqqq = 1, high = 3 }",
            "[space] dim has no key 'qqqq'. There are: choices, low, high, log, step, when, each_block.",
        ),
        ("[space]\ndim = { choices = [1], low = 3 }", "[space] dim takes choices, or low and high, not both."),
        ("[space]\ndim = { choices = [] }", "[space] dim needs at least one choice."),
        ("[space]\ndim = { choices = 3 }", "[space] dim needs at least one choice."),
        ("[space]\ndim = { choices = [1, 1] }", "[space] dim lists a choice twice: [1, 1]."),
        (
            "[space]\ntoken_width = { choices = [[1, 2], [2, 3]] }",
            "[space] token_width choices must be numbers, words or true/false, got [1, 2].",
        ),
        ("[space]\ndim = { choices = [0] }", "[space] dim: input should be greater than or equal to 1, got 0."),
        ("[space]\ndim = { low = 5, high = 3 }", "[space] dim has low 5 above high 3."),
        ("[space]\nshift = { low = 2, high = 1.5 }", "[space] shift has low 2.0 above high 1.5."),
        ("[space]\ndim = { low = 0, high = 3 }", "[space] dim: input should be greater than or equal to 1, got 0."),
        ("[space]\ndim = { low = 1.0, high = 3 }", "[space] dim: input should be a valid integer, got 1.0."),
        ("[space]\ndropout = { low = 0, high = 1 }", "[space] dropout: input should be less than 1, got 1."),
        (
            "[space]\nweight_decay = { low = 0, high = 1, log = true }",
            "[space] weight_decay with log = true needs low above 0 and no step.",
        ),
        (
            "[space]\ndim = { low = 1, high = 9, log = true, step = 2 }",
            "[space] dim with log = true needs low above 0 and no step.",
        ),
        ("[space]\ndim = { low = 1, high = 3, log = 1 }", "[space] dim log: input should be a valid boolean, got 1."),
        (
            "[space]\ndim = { low = 1, high = 3, step = 0 }",
            "[space] dim step: input should be greater than or equal to 1, got 0.",
        ),
        (
            "[space]\ndim = { low = 1, high = 3, step = 0.5 }",
            "[space] dim step: input should be a valid integer, got 0.5.",
        ),
        (
            "[space]\nmixup = { low = 0, high = 3, step = -1 }",
            "[space] mixup step: input should be greater than 0, got -1.",
        ),
        (
            "[space]\nskip = { low = false, high = true }",
            "[space] skip is not a number: list its values as { choices = [...] }.",
        ),
        (
            "[space]\nnorm = { low = 'batch', high = 'layer' }",
            "[space] norm is not a number: list its values as { choices = [...] }.",
        ),
        # Values of the wrong type or out of bounds.
        ("[fixed]\ndim = 'big'", "[fixed] dim: input should be a valid integer, got 'big'."),
        ("[fixed]\ndim = 1.5", "[fixed] dim: input should be a valid integer, got 1.5."),
        ("[fixed]\nskip = 1", "[fixed] skip: input should be a valid boolean, got 1."),
        ("[fixed]\ndropout = 1", "[fixed] dropout: input should be less than 1, got 1."),
        ("[fixed]\nlearning_rate = 0", "[fixed] learning_rate: input should be greater than 0, got 0."),
        ("[fixed]\nlearning_rate = inf", "[fixed] learning_rate: input should be a finite number, got inf."),
        ("[fixed]\nnorm = 'group'", "[fixed] norm: input should be 'layer', 'batch' or 'none', got 'group'."),
        ("[fixed]\nimage_size = 30", "[fixed] image_size: input should be 28 or 32, got 30."),
        ("[train]\nepochs = '5'", "[train] epochs: input should be a valid integer, got '5'."),
        ("[train]\nepochs = 0", "[train] epochs: input should be greater than or equal to 1, got 0."),
        (
            "[data]\ndataset = 'cifar'",
            "[data] dataset: input should be 'kmnist', 'mnist', 'fashion-mnist' or 'digits', got 'cifar'.",
        ),
        ("[data]\nval_share = 1.0", "[data] val_share: input should be less than 1, got 1.0."),
        ("[study]\nname = ''", "[study] name: string should have at least 1 character, got ''."),
        ("[study]\nname = 'a b'", r"[study] name: string should match pattern '^\w[\w.-]*$', got 'a b'."),
        ("[study]\nmetric = 'loss'", "[study] metric: input should be 'val_accuracy' or 'val_loss', got 'loss'."),
        ("[study]\nsampler = 'grid'", "[study] sampler: name: input should be 'gp', 'tpe' or 'random', got 'grid'."),
        (
            "[study]\nsampler = { name = 'tpe', startup = 3 }",
            "[study] sampler has no key 'startup'. Did you mean 'startup_trials'?",
        ),
        (
            "[study]\npruner = { name = 'median', min_epochs = 0 }",
            "[study] pruner: min_epochs: input should be greater than or equal to 1, got 0.",
        ),
        # Values that do not fit together.
        (
            "[fixed]\npatch_size = 5",
            "[fixed] has values that do not fit together: "
            "patch_size 5 does not divide image_size 28: use one of [1, 2, 4, 7, 14, 28].",
        ),
        (
            "[space]\npatch_size = { choices = [4, 8] }",
            "[space] has values that do not fit together: "
            "patch_size 8 does not divide image_size 28: use one of [1, 2, 4, 7, 14, 28].",
        ),
        (
            "[space]\npatch_size = { choices = [4, 7] }\n[fixed]\nimage_size = 32",
            "[fixed] and [space] have values that do not fit together: "
            "patch_size 7 does not divide image_size 32: use one of [1, 2, 4, 8, 16, 32].",
        ),
        (
            "[fixed]\ntoken_width = [1, 2]\nnum_blocks = 3",
            "[fixed] has values that do not fit together: token_width lists 2 widths for num_blocks = 3.",
        ),
        (
            "[fixed]\nchannel_width = [1, 2]",
            "[fixed] has values that do not fit together: channel_width lists 2 widths for num_blocks = 4.",
        ),
        (
            "[fixed]\ntoken_width = [1, 2]\n[space]\nnum_blocks = { low = 2, high = 3 }",
            "[fixed] and [space] have values that do not fit together: token_width lists 2 widths for num_blocks = 3.",
        ),
        (
            "[fixed]\ndrop_path = 0.1\n[space]\nskip = { choices = [true, false] }",
            "[fixed] and [space] have values that do not fit together: "
            "drop_path needs skip = true: without a skip connection, a dropped block has no output.",
        ),
        # Layers, which define the whole net.
        (
            "[fixed]\nlayers = ['linear tokens 8', 'mean feature']",
            "[fixed] layers: 'mean feature' is not a layer here. Write 'linear AXIS WIDTH', 'batch_norm AXIS', 'relu', "
            "'gelu', or 'dropout SHARE' with a share from 0 to below 1, and 'mean AXIS' as the last layer only, where "
            "AXIS is tokens or features, "
            "got ['linear tokens 8', 'mean feature'].",
        ),
        (
            "[fixed]\nlayers = ['mean tokens']\n[space]\ndim = { choices = [8, 16] }",
            "[fixed] and [space] have values that do not fit together: dim cannot be set together with layers, "
            "which define the whole net. Leave it out.",
        ),
        (
            "[fixed]\nlayers = [['linear tokens 8'], 'mean tokens']",
            "[fixed] has values that do not fit together: the input of a branch is 49 tokens of 16 features, its "
            "output 8 of 16: the output cannot be added to the input.",
        ),
        (
            "[space]\nlayers = { choices = [['mean tokens']] }",
            "[space] layers choices must be numbers, words or true/false, got ['mean tokens'].",
        ),
        ("[data]\nval_share = 0.0", "[data] val_share: must be above 0, since trials are judged by images held out."),
        ("[retrain]\ntop_k = 0", "[retrain] top_k: input should be greater than or equal to 1, got 0."),
        (
            "[retrain]\nseeds = 3",
            "[retrain] has no key 'seeds'. There are: top_k, reruns, rerun_epochs, models, epochs, max_parameters.",
        ),
        ("[study]\nplan = 'best'", "describes planned trainings, which cannot be run from a file."),
        (
            "[systems.a.fixed]\ndim = 3",
            "was made by the references of an earlier version. "
            "Begin another: kmnist-search references --name references-2",
        ),
        # Enqueued configurations.
        ("[enqueue]\ndim = 3", "[enqueue] must be a list of tables."),
        ("enqueue = [1]", "[[enqueue]] 1 must be a table."),
        ("[[enqueue]]\ndim = 3", "[[enqueue]] 1 has 'dim', which is not in [space]. There are none."),
        (
            "[[enqueue]]\ndimm = 3\n[space]\ndim = { choices = [1] }",
            "[[enqueue]] 1 has 'dimm', which is not in [space]. Did you mean 'dim'?",
        ),
        (
            "[[enqueue]]\ndim = 1\n[[enqueue]]\ndim = 3\n[space]\ndim = { choices = [1] }",
            "[[enqueue]] 2 has dim = 3, which [space] does not contain.",
        ),
        (
            "[[enqueue]]\ndim = 2\n[space]\ndim = { low = 1, high = 5, step = 2 }",
            "[[enqueue]] 1 has dim = 2, which [space] does not contain.",
        ),
        (
            "[[enqueue]]\ndim = 3.0\n[space]\ndim = { low = 1, high = 5 }",
            "[[enqueue]] 1 dim: input should be a valid integer, got 3.0.",
        ),
        (
            "[[enqueue]]\nshift = 2.1\n[space]\nshift = { low = 1, high = 2 }",
            "[[enqueue]] 1 has shift = 2.1, which [space] does not contain.",
        ),
        (
            "[[enqueue]]\nskip = 'true'\n[space]\nskip = { choices = [true, false] }",
            "[[enqueue]] 1 skip: input should be a valid boolean, got 'true'.",
        ),
        # Conditions.
        (
            f"{OPTIMIZERS}momentum = {{ low = 0.1, high = 0.9, when = 'sgd' }}",
            "[space] momentum: when must name others and their values, such as { optimizer = \"sgd\" }, got 'sgd'.",
        ),
        (
            f"{OPTIMIZERS}momentum = {{ low = 0.1, high = 0.9, when = {{ optimiser = 'sgd' }} }}",
            "[space] momentum: when has no hyperparameter 'optimiser'. Did you mean 'optimizer'?",
        ),
        (
            f"{OPTIMIZERS}momentum = {{ low = 0.1, high = 0.9, when = {{ optimizer = 'sdg' }} }}",
            "[space] momentum: when: input should be 'adamw', 'adam' or 'sgd', got 'sdg'.",
        ),
        (
            f"{OPTIMIZERS}momentum = {{ low = 0.1, high = 0.9, when = {{ optimizer = 'adam' }} }}",
            "[space] momentum: when 'adam' is not among the choices of optimizer.",
        ),
        (
            "[fixed]\noptimizer = 'sgd'\n[space]\nmomentum = { low = 0.1, high = 0.9, when = { optimizer = 'sgd' } }",
            "[space] momentum: when optimizer is in [fixed]. Leave the condition out, or momentum.",
        ),
        (
            "[space]\nmomentum = { low = 0.1, high = 0.9, when = { optimizer = 'sgd' } }",
            "[space] momentum: when optimizer must be in [space], with choices and without a condition of its own.",
        ),
        (
            f"{OPTIMIZERS}dim = {{ low = 1, high = 9, when = {{ optimizer = 'sgd' }} }}",
            "[space] dim: when is not for hyperparameters of the model, which all trials have.",
        ),
        # Widths for each block.
        (
            "[space]\ndim = { choices = [8, 16], each_block = true }",
            "[space] dim: each_block is for token_width and channel_width.",
        ),
        (
            "[space]\ntoken_width = { choices = [8, 16], each_block = 'yes' }",
            "[space] token_width: each_block must be true or false, got 'yes'.",
        ),
        (
            f"[[enqueue]]\nnum_blocks = 2\nchannel_width = [64, 64, 32]\n{BLOCKS}",
            "[[enqueue]] 1 lists 3 widths in channel_width: needs num_blocks = 3.",
        ),
        (
            f"[[enqueue]]\nchannel_width = [64, 64]\n{BLOCKS}",
            "[[enqueue]] 1 lists 2 widths in channel_width: needs num_blocks = 2.",
        ),
        (
            f"[[enqueue]]\nnum_blocks = 2\nchannel_width = [64, 48]\n{BLOCKS}",
            "[[enqueue]] 1 has channel_width = [64, 48], which [space] does not contain.",
        ),
        # Constraints.
        ("[constraints]\nmax_params = 3", "[constraints] has no key 'max_params'. Did you mean 'max_parameters'?"),
        ("[constraints]\nmax_flops = 0", "[constraints] max_flops: input should be greater than or equal to 1, got 0."),
        (
            "[constraints]\nmax_parameters = 100\n[space]\ndim = { choices = [16, 8] }",
            "[constraints] max_parameters: 100 excludes every net of [space]; the smallest has 43,350 parameters. "
            "Allow more, or let [space] begin with smaller nets.",
        ),
        (
            "[constraints]\nmax_parameters = 60_000\n[space]\ndim = { choices = [8, 64] }\n[[enqueue]]\ndim = 64",
            "[[enqueue]] 1 has 160,782 parameters, more than [constraints] allow.",
        ),
        (
            "[constraints]\nmax_memory_mib = 100\n[space]\nbatch_size = { choices = [512, 64] }",
            "[constraints] max_memory_mib: 100 excludes every net of [space]; the smallest has 523 MiB of GPU memory. "
            "Allow more, or let [space] begin with smaller nets.",
        ),
        (
            "[constraints]\nmax_parameters = 5_000\nmax_flops = 200_000\n[space]\npatch_size = { choices = [2, 14] }\n"
            "[fixed]\ndim = 64\ntoken_width = 2\nchannel_width = 8\nnum_blocks = 1",
            "[constraints] exclude together every net of [space]. Allow more, or let [space] begin with smaller nets.",
        ),
        (
            "[study]\npruner = { name = 'asha', min_epoch = 2 }",
            "[study] pruner has no key 'min_epoch'. Did you mean 'min_epochs'?",
        ),
        (
            "[study]\nsampler = { name = 'gp', zzzz = 2 }",
            "[study] sampler has no key 'zzzz'. There are: name, startup_trials.",
        ),
        # The second objective.
        (
            "[study]\nsecond_objective = 'parameters'\nsampler = 'tpe'",
            '[study] sampler: "tpe" sees the metric alone; with second_objective it must be "gp" or "random".',
        ),
        (
            "[study]\nsecond_objective = 'parameters'\npruner = 'median'",
            '[study] pruner: "median" sees the metric alone; with second_objective it must be "asha" or "none".',
        ),
        ("[study]\nsecond_objective = 'size'", "[study] second_objective: input should be 'parameters', got 'size'."),
    ],
)
def test_a_wrong_study_file_is_refused_with_this_message(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(StudyFileError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("text", ["[train", "[train]\nepochs = 5\nepochs = 6", "epochs: 5"])
def test_a_file_that_is_not_toml_is_refused_with_the_place(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(tomllib.TOMLDecodeError) as cause:  # its words differ from one Python to the next
        tomllib.loads(text)
    with pytest.raises(StudyFileError) as caught:
        load(path)
    assert str(caught.value) == f"{path} is not TOML: {cause.value}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train", f"--set train: {SET_ADVICE}"),
        ("train=3", f"--set train=3: {SET_ADVICE}"),
        ("train.=3", f"--set train.=3: {SET_ADVICE}"),
        (".epochs=3", f"--set .epochs=3: {SET_ADVICE}"),
        ("train.epochs", f"--set train.epochs: {SET_ADVICE}"),
        ("enqueue.dim=3", "--set enqueue.dim=3: 'enqueue' is not a table of the study file, so --set cannot change it"),
        ("train.epochs=x", "{path} with train.epochs=x: [train] epochs: input should be a valid integer, got 'x'."),
        ("train.epoch=3", "{path} with train.epoch=3: [train] has no key 'epoch'. Did you mean 'epochs'?"),
        ("trian.epochs=3", "{path} with trian.epochs=3: there is no table [trian]. Did you mean 'train'?"),
        (
            "space.dim=3",
            "{path} with space.dim=3: [space] dim needs {{ choices = [...] }} or {{ low = ..., high = ... }}, got 3.",
        ),
    ],
)
def test_a_wrong_override_is_refused_with_this_message(tmp_path: Path, override: str, message: str) -> None:
    path = written(tmp_path, "[space]\ndim = { choices = [1, 2] }\n[[enqueue]]\ndim = 1")
    with pytest.raises(StudyFileError) as caught:
        load(path, overrides=[override])
    assert str(caught.value) == message.format(path=path)


def test_a_file_that_is_not_there_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.toml"
    with pytest.raises(StudyFileError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: cannot be read: [Errno 2] No such file or directory: '{path}'"


def test_a_folder_instead_of_a_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: cannot be read: ")


def test_a_file_that_is_not_utf_8_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe[study]")
    with pytest.raises(StudyFileError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: cannot be read: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    )


def test_a_list_as_one_end_of_a_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"\[space\] token_width"):
        loaded(tmp_path, "[space]\ntoken_width = { low = [64], high = 128 }")


def test_a_bad_width_is_refused_in_words_of_the_study_file(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError) as caught:
        loaded(tmp_path, "[fixed]\ntoken_width = 0")
    assert "[fixed] token_width" in str(caught.value)
    assert "got 0" in str(caught.value)
    assert "constrained-int" not in str(caught.value)


def test_a_whole_number_enqueued_for_a_choice_of_floats_is_taken(tmp_path: Path) -> None:
    study = loaded(tmp_path, "[[enqueue]]\nmixup = 0\n[space]\nmixup = { choices = [0, 0.5] }")
    assert study.enqueue == ({"mixup": 0},)


def test_a_float_enqueued_between_two_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"has mixup = 0\.15, which \[space\] does not contain"):
        loaded(tmp_path, "[[enqueue]]\nmixup = 0.15\n[space]\nmixup = { low = 0, high = 1, step = 0.1 }")


@pytest.mark.parametrize("value", [0.0, 0.3, 0.7, 1.0])
def test_a_float_enqueued_on_a_step_is_taken_in_spite_of_rounding(tmp_path: Path, value: float) -> None:
    study = loaded(tmp_path, f"[[enqueue]]\nmixup = {value}\n[space]\nmixup = {{ low = 0, high = 1, step = 0.1 }}")
    assert study.enqueue == ({"mixup": value},)


def test_a_hyperparameter_with_a_condition_is_searched_only_where_it_is_met(tmp_path: Path) -> None:
    text = f"{OPTIMIZERS}momentum = {{ low = 0.1, high = 0.8, when = {{ optimizer = 'sgd' }} }}"
    study = loaded(tmp_path, text.replace("[space]\n", "[space]\nlearning_rate = { choices = [0.1] }\n"))
    for optimizer, momentum in (("sgd", 0.5), ("adamw", 0.9)):
        trial = Recorder({"optimizer": optimizer, "momentum": 0.5, "learning_rate": 0.1})
        assert study.suggest(trial).config.optimizer.momentum == momentum
        assert ("momentum" in trial.asked) is (optimizer == "sgd")
    assert loads(as_toml(study.model_dump(mode="json")), source="again", name="again") == study


def test_any_of_several_values_may_meet_a_condition(tmp_path: Path) -> None:
    study = loaded(
        tmp_path,
        "[space]\nbeta2 = { low = 0.9, high = 0.999, when = { optimizer = ['adam', 'adamw'] } }\n"
        "optimizer = { choices = ['adam', 'adamw', 'sgd'] }",
    )
    asked = {optimizer: Recorder({"optimizer": optimizer, "beta2": 0.95}) for optimizer in ("adam", "adamw", "sgd")}
    for trial in asked.values():
        study.suggest(trial)
    assert [name for name, trial in asked.items() if "beta2" in trial.asked] == ["adam", "adamw"]


def test_each_block_may_have_a_width_of_its_own(tmp_path: Path) -> None:
    study = loaded(tmp_path, BLOCKS)
    widths = {"channel_width_1": 32, "channel_width_2": 64, "channel_width_3": 32}
    for num_blocks in (1, 2, 3):
        trial = Recorder({"num_blocks": num_blocks, **widths})
        model = study.suggest(trial).config.model
        assert isinstance(model, PatchMLPConfig)
        assert model.channel_width == (32, 64, 32)[:num_blocks]
        assert len(trial.asked) == 1 + num_blocks
    assert loads(as_toml(study.model_dump(mode="json")), source="again", name="again") == study


def test_widths_tried_first_are_those_of_the_blocks_or_one_for_all(tmp_path: Path) -> None:
    entries = "[[enqueue]]\nnum_blocks = 2\nchannel_width = [64, 32]\n[[enqueue]]\nchannel_width = 32\n"
    study = loaded(tmp_path, entries + BLOCKS)
    queue = Queue()
    study.fill(queue, 10)
    assert queue.first == [
        {"num_blocks": 2, "channel_width_1": 64, "channel_width_2": 32},
        {"channel_width_1": 32, "channel_width_2": 32, "channel_width_3": 32},
    ]


def test_constraints_take_widths_that_are_still_open_as_the_largest(tmp_path: Path) -> None:
    open_widths = {"num_blocks": 3, "channel_width_1": 32}
    largest = cost.num_parameters(
        loaded(tmp_path, BLOCKS).config({"num_blocks": 3, "channel_width": (32, 64, 64)}).model
    )
    for most, allowed in ((largest, True), (largest - 1, False)):
        study = loaded(tmp_path, f"[constraints]\nmax_parameters = {most}\n{BLOCKS}")
        assert study.allows(open_widths) is allowed


def test_constraints_allow_the_nets_that_are_small_enough(tmp_path: Path) -> None:
    study = loaded(
        tmp_path,
        "[constraints]\nmax_parameters = 100_000\nmax_flops = 9_000_000\n[space]\ndim = { low = 8, high = 64 }",
    )
    allowed = [dim for dim in range(8, 65) if study.allows({"dim": dim})]
    for dim in range(8, 65):
        model = study.config({"dim": dim}).model
        fits = cost.num_parameters(model) <= 100_000 and cost.flops_per_image(model) <= 9_000_000
        assert (dim in allowed) is fits
    assert 8 < max(allowed) < 64


def test_a_constraint_on_memory_excludes_large_batches_of_large_nets(tmp_path: Path) -> None:
    space = "[space]\ndim = { low = 8, high = 64 }\nbatch_size = { low = 2, high = 2048 }"
    study = loaded(tmp_path, f"[constraints]\nmax_memory_mib = 600\n{space}")
    assert study.allows({"dim": 64, "batch_size": 64})
    assert study.allows({"dim": 8, "batch_size": 512})
    assert not study.allows({"dim": 64, "batch_size": 512})


@pytest.mark.parametrize("name", ["quickstart", "kmnist", "kmnist-cpu", "kmnist-hour", "kmnist-wide"])
def test_a_built_in_study_loads_under_its_own_name(name: str) -> None:
    study = load(find_study_file(name))
    assert study.study.name == name
    assert study.space
    assert study.middle().train == study.train


def test_the_built_in_studies_are_these() -> None:
    searches = [name for name in builtin_studies() if not name.startswith("references/")]
    assert searches == ["kmnist", "kmnist-cpu", "kmnist-hour", "kmnist-wide", "quickstart"]


def test_the_quickstart_needs_no_download() -> None:
    assert load(find_study_file("quickstart")).data.dataset == "digits"


def test_only_large_studies_are_meant_for_a_gpu() -> None:
    meant_for = {name: load(path).study.meant_for for name, path in builtin_studies().items()}
    assert {name for name, device in meant_for.items() if device == "gpu"} == {"kmnist", "kmnist-wide", "references/s2"}


def test_a_file_that_sets_nothing_is_a_study_of_the_defaults_named_after_the_file(tmp_path: Path) -> None:
    study = loaded(tmp_path, "[study]")
    assert study.study.name == "mine"
    assert study == SearchFile(study=study.study)
    assert study.study.direction == "maximize"


def test_a_whole_study_file_is_read_as_written(tmp_path: Path) -> None:
    study = loaded(
        tmp_path,
        """
        [study]
        name = "whole"
        metric = "val_loss"
        sampler = "random"
        pruner = { name = "median", min_epochs = 2 }
        seed = 7
        trials = 3
        [data]
        dataset = "digits"
        val_share = 0.25
        [train]
        epochs = 4
        [fixed]
        token_width = [8, 16]
        num_blocks = 2
        shift = 2
        [space]
        dim = { low = 8, high = 32, step = 8 }
        learning_rate = { low = 1e-3, high = 1e-2, log = true }
        norm = { choices = ["layer", "batch"] }
        dropout = { low = 0, high = 0.5 }
        [[enqueue]]
        dim = 16
        norm = "batch"
        dropout = 0
        """,
    )
    assert study.study.direction == "minimize"
    assert study.study.sampler == SamplerConfig(name="random")
    assert study.study.pruner == PrunerConfig(name="median", min_epochs=2)
    assert (study.study.seed, study.study.trials) == (7, 3)
    assert (study.data.dataset, study.data.val_share, study.train.epochs) == ("digits", 0.25, 4)
    assert study.fixed == {"token_width": (8, 16), "num_blocks": 2, "shift": 2.0}
    assert study.space == {
        "dim": IntRange(low=8, high=32, step=8),
        "learning_rate": FloatRange(low=1e-3, high=1e-2, log=True),
        "norm": Choices(choices=("layer", "batch")),
        "dropout": FloatRange(low=0.0, high=0.5),
    }
    assert study.enqueue == ({"dim": 16, "norm": "batch", "dropout": 0},)


def test_overrides_win_over_the_file_and_the_last_one_over_the_others(tmp_path: Path) -> None:
    study = loaded(
        tmp_path,
        "[study]\nname = 'file'\n[train]\nepochs = 1\n[fixed]\nnorm = 'layer'\ndim = 8",
        "train.epochs=5",
        "train.epochs = 6",
        "study.name=mine",
        "study.sampler={ name = 'tpe', startup_trials = 3 }",
        "data.dataset=digits",
        "fixed.norm='batch'",
        "fixed.token_width=[1, 2, 3, 4]",
        "space.learning_rate={ low = 1e-3, high = 1e-2, log = true }",
    )
    assert (study.train.epochs, study.study.name, study.data.dataset) == (6, "mine", "digits")
    assert study.study.sampler.startup_trials == 3
    assert study.fixed == {"norm": "batch", "dim": 8, "token_width": (1, 2, 3, 4)}
    assert study.space == {"learning_rate": FloatRange(low=1e-3, high=1e-2, log=True)}


def test_an_override_mends_what_is_wrong_in_the_file(tmp_path: Path) -> None:
    assert loaded(tmp_path, "[train]\nepochs = 0", "train.epochs=2").train.epochs == 2


def test_each_kind_of_hyperparameter_asks_the_trial_in_its_own_way(tmp_path: Path) -> None:
    study = loaded(
        tmp_path,
        """
        [train]
        epochs = 3
        [fixed]
        num_blocks = 2
        [space]
        norm = { choices = ["layer", "none"] }
        dim = { low = 8, high = 32, step = 8 }
        channel_width = { low = 8, high = 64, log = true }
        learning_rate = { low = 1e-3, high = 1e-2, log = true }
        shift = { low = 0, high = 2, step = 0.5 }
        """,
    )
    trial = Recorder({"norm": "none", "dim": 24, "channel_width": 17, "learning_rate": 0.004, "shift": 1.5})
    config = study.suggest(trial).config
    assert trial.asked == {
        "norm": ("categorical", ("layer", "none")),
        "dim": ("int", 8, 32, 8, False),
        "channel_width": ("int", 8, 64, 1, True),
        "learning_rate": ("float", 1e-3, 1e-2, None, True),
        "shift": ("float", 0.0, 2.0, 0.5, False),
    }
    assert config.model == PatchMLPConfig(num_blocks=2, norm="none", dim=24, channel_width=17)
    assert config.optimizer == OptimizerConfig(learning_rate=0.004)
    assert config.augment == AugmentConfig(shift=1.5)
    assert config.train.epochs == 3


def test_the_middle_is_of_middling_size(tmp_path: Path) -> None:
    study = loaded(
        tmp_path,
        """
        [fixed]
        patch_size = 7
        [space]
        dim = { choices = [16, 32, 64] }
        num_blocks = { low = 1, high = 5 }
        channel_width = { low = 10, high = 50, step = 20 }
        learning_rate = { low = 1e-3, high = 1e-2, log = true }
        """,
    )
    middle = study.middle()
    assert middle.model == PatchMLPConfig(patch_size=7, dim=32, num_blocks=3, channel_width=30)
    assert 1e-3 <= middle.optimizer.learning_rate <= 1e-2


def test_without_a_space_the_fixed_values_alone_are_the_middle(tmp_path: Path) -> None:
    study = loaded(tmp_path, "[fixed]\ndim = 8")
    assert study.middle().model == PatchMLPConfig(dim=8) == study.suggest(Recorder({})).config.model


def test_an_override_moves_a_hyperparameter_from_the_space_to_the_fixed_and_back(tmp_path: Path) -> None:
    text = (
        "[space]\ndim = { choices = [1, 2] }\nnum_blocks = { low = 1, high = 2 }\n[[enqueue]]\ndim = 1\nnum_blocks = 2"
    )
    fixed = loaded(tmp_path, text, "fixed.dim=64")
    assert (fixed.fixed, list(fixed.space), fixed.enqueue) == ({"dim": 64}, ["num_blocks"], ({"num_blocks": 2},))
    searched = loaded(tmp_path, "[fixed]\ndim = 8", "space.dim={choices = [1, 2]}")
    assert (searched.fixed, list(searched.space)) == ({}, ["dim"])


def test_an_empty_study_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError) as caught:
        loaded(tmp_path, "")
    assert str(caught.value).endswith(
        "mine.toml: is empty. Name hyperparameters to search in [space], or fix some in [fixed]."
    )


def test_a_wrong_override_of_a_built_in_study_names_the_study_and_the_override() -> None:
    with pytest.raises(StudyFileError) as caught:
        load(builtin_studies()["quickstart"], overrides=["fixed.cutout=abc"])
    assert str(caught.value) == (
        "built-in study quickstart with fixed.cutout=abc: [fixed] cutout: input should be a valid integer, got 'abc'."
    )
