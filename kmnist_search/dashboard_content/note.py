"""The note of a study in Markdown: what is searched, the progress, the best trials, and useful commands.

Text that people write below its last line is kept.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from kmnist_search.charts import trials as read
from kmnist_search.dashboard_content.snapshot import Snapshot
from kmnist_search.data.catalog import title_of
from kmnist_search.study_file.schema import SearchFile
from kmnist_search.study_file.space import Choices, Hyperparameter
from kmnist_search.wording import count, duration_text, metric_text, moment, percent, value

END = "*kmnist-search writes all above this line. What you write below it stays.*"
#: The most failure reasons listed; `kmnist-search status` shows more.
MOST_REASONS = 5
#: The most characters of a reason; some contain a whole configuration.
MOST_REASON = 200


def note(standing: Snapshot, before: str = "") -> str:
    """Return the note of a study.

    Args:
        standing: what the note describes.
        before: the present note; text that people wrote into it is kept.
    """
    kind = SEARCH if isinstance(standing.file, SearchFile) else COMPARISON
    parts = [f"# {standing.name}", *("\n".join(section(standing)) for section in (_progress, *kind, _failures))]
    theirs = before.partition(END)[2] if END in before else f"\n\n{before}" if before.strip() else ""
    ours = "\n\n".join(part for part in parts if part)
    return f"{ours}\n\n---\n{END}{theirs}"


def _progress(standing: Snapshot) -> Iterator[str]:
    counts, finished = standing.counts, standing.counts.finished
    yield "## Progress"
    yield ""
    yield (
        f"**{finished:,} of {count(max(standing.budget, finished), 'trial')}** finished: {counts.complete:,} complete, "
        f"{counts.pruned:,} pruned, {counts.fail:,} failed. {counts.running:,} running, {counts.waiting:,} waiting."
    )
    history = read.history(standing.trials, standing.direction)
    if len(history.seconds):
        time = f"{duration_text(float(history.seconds[-1]))} of {_clock(standing)} so far"
        saved = read.saved(standing.trials, standing.file.train.epochs)
        yield f"{time}; pruning saved about {duration_text(saved.seconds)}." if saved.seconds else f"{time}."
    yield f"This was so at {moment(standing.at)}."


def _clock(standing: Snapshot) -> str:
    return "GPU time" if read.clock_name(standing.trials) == "GPU-seconds" else "training"


def _best(standing: Snapshot) -> Iterator[str]:
    yield "## Best"
    yield ""
    if not standing.ranked:
        yield "No trial is complete yet."
        return
    best = standing.ranked[0]
    yield f"Trial {best.number}: **{_result(standing, best)}**, {_cost(best)}."
    yield ""
    yield ", ".join(f"`{name}` {value(each)}" for name, each in best.params.items()) or "Nothing was searched."
    if len(standing.ranked) > 1:
        second = standing.ranked[1]
        yield ""
        yield f"The next is trial {second.number} with {_result(standing, second)}."


def _result(standing: Snapshot, trial: FrozenTrial) -> str:
    if standing.file.study.metric == "val_accuracy":
        return f"{percent(trial.values[0])} of the validation images right"
    return f"a validation loss of {metric_text('val_loss', trial.values[0])}"


def _cost(trial: FrozenTrial) -> str:
    known = [f"after {count(len(trial.intermediate_values), 'epoch')}"]
    if isinstance(time := trial.user_attrs.get("seconds"), int | float):
        known.append(f"in {duration_text(time)}")
    if isinstance(size := trial.user_attrs.get("num_parameters"), int):
        known.append(f"with {size:,} parameters")
    return " ".join(known)


def _searched(standing: Snapshot) -> Iterator[str]:
    file, images = standing.file, standing.images
    assert isinstance(file, SearchFile)
    assert images is not None
    yield "## What is searched"
    yield ""
    yield (
        f"{title_of(file.data.dataset)}: {images.train:,} images to train on, {images.val:,} to validate with (data "
        f"digest `{images.digest}`). The test set is sealed: a search cannot open it."
    )
    yield ""
    yield (
        f"{count(standing.budget, 'trial')} of at most {count(file.train.epochs, 'epoch')}, by {file.study.metric}. "
        f"Proposed by {_sampler(standing)}; ended early by {_pruner(standing)}. Seed {file.study.seed}."
    )
    if file.space:
        yield ""
        yield "| hyperparameter | values |"
        yield "|---|---|"
        for name, spec in file.space.items():
            yield f"| {name} | {_values(spec)} |"
    if file.fixed:
        yield ""
        yield f"Fixed: {', '.join(f'`{name}` {_fixed(each)}' for name, each in file.fixed.items())}."


def _sampler(standing: Snapshot) -> str:
    sampler = standing.file.study.sampler
    return f"TPE after {count(sampler.startup_trials, 'random trial')}" if sampler.name == "tpe" else "chance"


def _pruner(standing: Snapshot) -> str:
    pruner = standing.file.study.pruner
    if pruner.name == "none":
        return "nobody"
    kept = "" if pruner.name == "median" else f", about one in {pruner.reduction_factor} goes on"
    return f"the {pruner.name.replace('_', ' ')} pruner, after {count(pruner.min_epochs, 'epoch')} or more{kept}"


def _values(spec: Hyperparameter) -> str:
    if isinstance(spec, Choices):
        return ", ".join(value(choice) for choice in spec.choices)
    step = f", by {value(spec.step)}" if spec.step and spec.step != 1 else ""
    return f"{value(spec.low)} to {value(spec.high)}{step}{' (log)' if spec.log else ''}"


def _fixed(setting: Any) -> str:
    if isinstance(setting, Mapping):
        return " ".join(f"{name}={value(each)}" for name, each in setting.items())
    if isinstance(setting, Sequence) and not isinstance(setting, str):
        return f"{len(setting)} entries"
    return value(setting)


def _compared(standing: Snapshot) -> Iterator[str]:
    """List the compared systems. Their trials use different images, so no single trial is the best."""
    yield "## What is compared"
    yield ""
    seen = dict.fromkeys(str(trial.params["system"]) for trial in standing.trials if "system" in trial.params)
    yield f"{', '.join(seen) or 'Nothing yet'}: fixed configurations, each on its own images, with several seeds."


def _search_commands(standing: Snapshot) -> Iterator[str]:
    name, storage = _shell_words(standing)
    yield from _commands(
        standing,
        [
            "# twenty trials more",
            f"kmnist-search studies show {name} {storage} > {name}.toml",
            f"kmnist-search run {name}.toml {storage} --trials {max(standing.budget, standing.counts.total) + 20}",
        ],
        [
            "# choose among the best, retrain, open the test set",
            f"kmnist-search best {name} {storage} --retrain",
        ],
    )


def _comparison_commands(standing: Snapshot) -> Iterator[str]:
    name, storage = _shell_words(standing)
    last = [
        "# open the test set and compare, when all is trained: the command that began it",
        f"kmnist-search references --name {name} {storage} ...",
    ]
    yield from _commands(standing, [], last)


def _commands(standing: Snapshot, more: Sequence[str], last: Sequence[str]) -> Iterator[str]:
    name, storage = _shell_words(standing)
    yield "## Go on, stop, retrain"
    yield ""
    yield "```bash"
    yield "# go on, on any machine that reaches the database"
    yield f"kmnist-search worker {name} {storage}"
    yield from more
    yield from _stopping(standing)
    yield from last
    yield "```"


def _shell_words(standing: Snapshot) -> tuple[str, str]:
    """Return the study's name and the storage option, quoted for a shell."""
    return shlex.quote(standing.name), f"--storage {shlex.quote(standing.storage_url)}"


def _stopping(standing: Snapshot) -> Iterator[str]:
    """Explain how to stop: in each worker's terminal, or by a signal to its process."""
    pids: dict[str, list[str]] = {}
    for worker in standing.workers:
        if not worker.is_gone:
            pids.setdefault(worker.owner.host, []).append(str(worker.owner.pid))
    if pids:
        yield "# stop, with checkpoints: Ctrl-C in a worker's terminal, or"
    for host, those in pids.items():
        yield f"kill {' '.join(those)}    # on {host}"


def _failures(standing: Snapshot) -> Iterator[str]:
    found = read.failures(standing.trials)
    if not found:
        return
    yield "## Failures"
    yield ""
    yield "| trials | reason | numbers |"
    yield "|---|---|---|"
    for reason, numbers in list(found.items())[:MOST_REASONS]:
        shown = ", ".join(str(number) for number in numbers[:10])
        yield f"| {len(numbers):,} | {_cell(reason)} | {shown}{', ...' if len(numbers) > 10 else ''} |"
    if len(found) > MOST_REASONS:
        yield ""
        yield f"And {count(len(found) - MOST_REASONS, 'other reason')}: `kmnist-search status {standing.name}`."


def _cell(text: str) -> str:
    line = " ".join(text.split())
    shown = line if len(line) <= MOST_REASON else f"{line[: MOST_REASON - 4]} ..."
    return f"`{shown.replace('`', chr(39)).replace('|', '/')}`"


#: The part of a note between progress and failures, by kind of study.
SEARCH = (_best, _searched, _search_commands)
COMPARISON = (_compared, _comparison_commands)
