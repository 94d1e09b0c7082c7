"""What `run` and `worker` print at the start and at the end."""

from collections.abc import Sequence

from rich.console import Console

from kmnist_search.host.environment import package_version
from kmnist_search.host.process import Owner
from kmnist_search.run.placement import Place
from kmnist_search.run.search import Search
from kmnist_search.study.status import Progress
from kmnist_search.terminal.printing import print_line
from kmnist_search.terminal.progress import best_text
from kmnist_search.wording import count, duration_text
from kmnist_search.worker.stop import StoppedBy


def announce(console: Console, search: Search, places: Sequence[Place], *, options: str = "") -> None:
    """Show what is about to be searched, and warnings for the user; commands to type next take `options`."""
    counts, name = search.counts(), search.study.name
    datasets, images = search.data.datasets, search.data.train_images
    print_line(console, f"study {name} in {search.study.storage.shown_url}: {datasets}, {images:,} training images")
    _print_recovered(console, search)
    announce_version(console, search.version_before)
    if counts.finished >= search.goal(counts):
        done = "1 trial is" if counts.finished == 1 else f"{counts.finished} trials are"
        print_line(console, f"{done} finished, {search.goal(counts)} were asked for: nothing to do.")
        best = f"kmnist-search best {name}{options}"
        print_line(console, f"For ten more: --trials +10. The best: {best}")
        return
    _print_places_or_warn(console, search, places)


def announce_warm_start(console: Console, source: str, taken: int) -> None:
    """Show what `--from` does: so many first trials are taken from the study `source`, or none as the study exists."""
    if taken:
        print_line(console, f"its first {count(taken, 'trial')} try the best of {source}")
    else:
        print_line(console, f"it exists already and goes on as it began: --from {source} changes nothing")


def announce_version(console: Console, version_before: str | None) -> None:
    """Show that a study now uses another version of this package, if it does."""
    if version_before is not None:
        print_line(
            console,
            f"its trials so far were made by kmnist-search {version_before}; from now on it takes only "
            f"workers of {package_version()}",
        )


def introduce(console: Console, search: Search, places: Sequence[Place]) -> None:
    """Show which worker joins which study."""
    owner, counts, study = Owner.this_process(), search.counts(), search.study
    info = search.worker_info()
    job = f", Slurm job {info.job}" if info.job else ""
    print_line(console, f"worker on host {owner.host}, process {owner.pid}{job}: {info.device}")
    print_line(console, "  ".join(f"{name} {version}" for name, version in info.versions.items()))
    print_line(
        console,
        f"joins study {study.name} in {study.storage.shown_url}: {search.data.digest_text}, "
        f"{counts.finished} of {counts.total} trials are finished",
    )
    _print_recovered(console, search)
    _print_places_or_warn(console, search, places)


def _print_recovered(console: Console, search: Search) -> None:
    if search.recovered:
        numbers = ", ".join(str(number) for number in search.recovered)
        print_line(console, f"back in the queue, because its worker is gone: trial {numbers}")


def _print_places_or_warn(console: Console, search: Search, places: Sequence[Place]) -> None:
    if len(places) > 1 or (places[0].device == "cpu" and places[0].cores > 1):
        print_line(console, _places_text(places))
    if search.file.study.meant_for == "gpu" and search.device.type == "cpu":
        print_line(
            console, "This study is meant for a GPU and there is none here. Measuring how long it would take ..."
        )
        print_line(
            console,
            f"On this CPU about {duration_text(search.estimate() / len(places))} if no trial were pruned. "
            "A study for a CPU instead: kmnist-search run kmnist-cpu",
        )


def conclude(
    console: Console,
    search: Search,
    progress: Progress,
    stopped_by: StoppedBy,
    *,
    command: str,
    options: str,
    retrains: bool = False,
) -> None:
    """Show how the run ended, the best trial, and how to resume, by `command`, or what to do next, with `options`.

    With `retrains` the next step is done at once.
    """
    counts = progress.counts
    state = f"{counts.finished} of {max(search.goal(counts), counts.finished)} trials are finished"
    match stopped_by:
        case "signal":
            print_line(console, f"Stopped: {state}, none is left running here. To resume: {command}")
        case "timeout":
            print_line(console, f"Time is up: {state}. To resume: {command}")
        case "max_trials":
            print_line(console, f"This worker has done --max-trials trials: {state}. To resume: {command}")
        case "command":
            print_line(console, f"The study was stopped: {state}, none is left running here. To resume: {command}")
        case "target":
            print_line(console, f"The target is reached: {state}.")
        case "patience":
            print_line(console, f"No new best for --patience {search.options.limits.patience} trials: {state}.")
        case "queue":
            still_run = "1 still runs" if counts.running == 1 else f"{counts.running} still run"
            print_line(console, f"Nothing is left to claim: {state}, {still_run} in other processes.")
        case "budget":
            print_line(console, f"Done: {state}.")
    if not progress.is_plan:
        print_line(console, f"best: {best_text(progress)}")
    if stopped_by == "budget" and not counts.complete:
        print_line(console, f"Why no trial is complete: kmnist-search status {progress.name}{options}")
    elif stopped_by in ("budget", "target", "patience") and not retrains:
        print_line(console, search.file.next_step(options))


def _places_text(places: Sequence[Place]) -> str:
    devices = [place.device for place in places]
    if devices[0] != "cpu":
        return f"{len(places)} worker processes, on {', '.join(devices)}"
    cores = places[0].cores
    share = "one core" if cores == 1 else f"up to {cores} cores"
    return f"{len(places)} worker processes, each on {share}" if len(places) > 1 else f"1 worker process, on {share}"
