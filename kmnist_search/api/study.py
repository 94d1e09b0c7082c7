"""A study, as programs and notebooks use it."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import optuna
from rich.console import Console

from kmnist_search.api.arguments import Count, Seconds, checked
from kmnist_search.api.planned import Desk, result_folder_of, retrain
from kmnist_search.api.winner import Winner
from kmnist_search.api.work import work_on
from kmnist_search.charts.chart import Chart
from kmnist_search.charts.plot import Plot
from kmnist_search.charts.trials import read as read_with_details
from kmnist_search.database.storage import open_storage
from kmnist_search.errors import ConfigError, StoppedError
from kmnist_search.report.search_charts import SearchCharts
from kmnist_search.retrain.plan import RetrainOptions
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import check_device, devices_of
from kmnist_search.run.submission import prepare
from kmnist_search.study import steering
from kmnist_search.study.opening import find_study, open_study
from kmnist_search.study.ranking import SIZE_KEY, front as front_of, up_to
from kmnist_search.study.status import status_of
from kmnist_search.study.study import SearchStudy
from kmnist_search.study.trial_rows import CURVES, epoch_rows, trial_columns, trial_rows
from kmnist_search.study_file.builtin import find_study_file
from kmnist_search.study_file.parser import load, of_tables
from kmnist_search.study_file.schema import SearchFile
from kmnist_search.terminal.printing import print_line
from kmnist_search.terminal.progress import best_text
from kmnist_search.wording import count
from kmnist_search.worker.stop import Limits, StoppedBy

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

STORAGE = "sqlite:///kmnist-search.db"

ChartName = Literal["history", "seconds", "size", "importance", "parallel", "curves", "timeline"]


class Study:
    """A search of hyperparameters: create or open it, run it, look at it, retrain its winner.

    It is the same study as that of the command line: workers, `kmnist-search status` and the dashboard see it, too.
    """

    def __init__(self, found: SearchStudy, storage: str) -> None:
        """Take a study of a database; see `create` and `open`."""
        self._found, self._storage = found, storage

    @classmethod
    @checked
    def create(
        cls,
        source: str | Path | SearchFile | Mapping[str, Any],
        *,
        trials: Count | None = None,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        storage: str = STORAGE,
    ) -> Self:
        """Create a study with its trials waiting; if it exists with the same settings, it is opened.

        Args:
            source: name of a built-in study, path of a study file, the tables of one as a dict, or one that was read.
            trials: budget; None means that of the study file. A study with fewer trials gets more.
            name: of the study; None means that of the study file.
            settings: what to change, such as `{"train.epochs": 5}`; as `--set` on the command line.
            storage: URL of the database.

        Raises:
            InputError: the study file, a setting or the database cannot be used, or the study has other settings.
        """
        overrides = [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
        if name is not None:
            overrides.append(f"study.name={json.dumps(name)}")
        if isinstance(source, SearchFile):
            source = source.model_dump(mode="json", exclude_defaults=True)
        if isinstance(source, Mapping):
            file = of_tables(source, source="the tables", default_name="study", overrides=overrides)
        else:
            file = load(find_study_file(str(source)), overrides=overrides)
        found = open_study(open_storage(storage, create=True), file)
        file.fill(found, file.study.trials if trials is None else trials)
        found.touch()
        found.storage.disconnect()
        return cls(found, storage)

    @classmethod
    @checked
    def open(cls, name: str | None = None, *, storage: str = STORAGE) -> Self:
        """Open a study of a database; without a name the only one, or the one last worked on.

        Raises:
            InputError: there is no such database or study.
        """
        return cls(find_study(open_storage(storage, create=False), name), storage)

    @property
    def name(self) -> str:
        """Its name in the database."""
        return self._found.name

    @property
    def optuna(self) -> optuna.Study:
        """The study as Optuna sees it, for its plots. Read only: `optimize` and `ask` would ignore the queue."""
        return self._found.optuna

    @checked
    def run(
        self,
        *,
        trials: Count | None = None,
        timeout: Seconds | None = None,
        target: float | None = None,
        patience: Count | None = None,
        device: str = "auto",
        workers: Count | None = None,
        data_dir: Path | str | None = None,
    ) -> StoppedBy:
        """Train the trials on this machine, and show how it goes, until none is left or a limit is reached.

        Other processes may work on the study at the same time. An interrupt (Ctrl-C, or the notebook's stop button)
        hands the running trials back; the next `run` resumes them.

        Args:
            trials: in all, if more than the study has.
            timeout: seconds, from now; starting the processes is part of them.
            target: a value of the metric that is good enough, such as 0.98.
            patience: finished trials without a new best after which none is started.
            device: "auto" (all GPUs, else the CPU), "cpu", "cuda" or "cuda:N".
            workers: processes on a CPU; None means as many as are fastest.
            data_dir: folder that contains the images; None means the one used last, or the user's cache.

        Returns:
            What ended it: "budget" (all trials are finished), "queue" (the last ones run elsewhere), "timeout",
            "target", "patience" or "command" (`stop`, from anywhere).

        Raises:
            KmnistSearchError: something cannot be used, or the work failed.
            KeyboardInterrupt: after an interrupt.
        """
        options = RunOptions(
            storage_url=self._storage,
            trials=max(trials or 0, self._found.counts().total),
            device=device,
            workers=workers,
            data_dir=None if data_dir is None else Path(data_dir),
            limits=Limits(target=target, patience=patience),
        )
        check_device(options)
        devices = devices_of(options, insist_on_workers=workers is not None)
        search = prepare(self._found.file, options.on(devices[0]))
        console = Console()
        if search.trials_left():
            ended = work_on(console, search, devices, timeout=timeout)
            if ended.interrupted:
                raise KeyboardInterrupt("all trials are handed back; run() resumes them")
            stopped_by = ended.stopped_by
            if stopped_by == "command":
                print_line(console, "The study was stopped. run() lets it go on.")
        else:
            stopped_by = "budget"
        print_line(console, self._summary())
        return stopped_by

    @checked
    def enqueue(self, *chosen: Mapping[str, Any]) -> int:
        """Let the next trials take chosen hyperparameters, such as `{"learning_rate": 0.004}`, one trial for each.

        Those that are left out are left to the sampler. The trials take the place of ones that wait; if too few wait,
        the study gets more.

        Returns:
            How many trials the study has then.

        Raises:
            StudyFileError: one is not searched, or outside of its range; nothing was changed.
        """
        steering.enqueue(self._found, chosen)
        return self._found.counts().total

    def stop(self) -> int:
        """End all workers of the study, on all machines: each hands back what it trains, with a checkpoint.

        Those that join later end at once, until `resume`; `run` also lets the study go on.

        Returns:
            How many workers were seen lately.
        """
        return steering.halt(self._found, "stopped") or 0

    def pause(self) -> int:
        """Let all workers of the study, on all machines, hand back what they train, and wait for `resume` or `run`.

        Returns:
            How many workers were seen lately.
        """
        return steering.halt(self._found, "paused") or 0

    def resume(self) -> None:
        """Let a paused or stopped study be worked on again. Workers that have ended are not started."""
        steering.resume(self._found)

    def retry_failed(self) -> list[int]:
        """Add a trial with the same hyperparameters for each failed one; return the numbers of the failed ones.

        Those that were tried again before are left out.
        """
        return steering.retry_failed(self._found)

    def trials(self) -> "pd.DataFrame":
        """Return a table with a row for each trial that runs or is finished; those that wait are not in it.

        The columns are `number`, `state` ("complete", "paused", "pruned", "failed" or "running"), the metric under its
        name, `epochs` (that were trained), `seconds` (of training), `parameters` (of the net), and the hyperparameters.
        A paused trial goes on only if it comes among the best while others are trained.

        Raises:
            ConfigError: pandas is not installed.
        """
        return _table(trial_rows(self._found), trial_columns(self._found))

    def curves(self) -> "pd.DataFrame":
        """Return a table with a row for each epoch of each finished trial.

        The columns are `number` (of the trial), `epoch` (from 1), `train_loss`, `train_accuracy`, `val_loss`,
        `val_accuracy`; accuracies are shares from 0 to 1.

        Raises:
            ConfigError: pandas is not installed.
        """
        return _table(epoch_rows(self._found), ("number", "epoch", *CURVES))

    def best(self, top: int = 10, *, front: bool = False, max_parameters: int | None = None) -> "pd.DataFrame":
        """Return the best complete trials, best first, with the columns of `trials`; paused ones are not complete.

        They were chosen on validation images: expect less on new ones.

        Args:
            top: the most trials.
            front: only trials that are better than all smaller ones.
            max_parameters: only nets that are not larger.

        Raises:
            NoCompleteTrialError: there is none.
            ConfigError: pandas is not installed.
        """
        if top < 1:
            raise ConfigError(f"best(): top must be 1 or more, got {top}")
        ranked = up_to(max_parameters, self._found.complete())
        if front:
            ranked = front_of([trial for trial in ranked if SIZE_KEY in trial.user_attrs])[::-1]
        rows = {row["number"]: row for row in trial_rows(self._found)}
        return _table([rows[trial.number] for trial in ranked[:top]], ())

    def plot(self, name: ChartName) -> "go.Figure":
        """Return a chart of the report as a figure of plotly.

        Args:
            name: "history" (the best over the trials), "seconds" (the best over the time), "size" (the metric against
                the parameters), "importance", "parallel", "curves" or "timeline".

        Raises:
            ConfigError: there is no such chart, or the trials so far are too few for it.
        """
        if name not in get_args(ChartName):
            raise ConfigError(f"there is no chart {name!r}. There are: {', '.join(get_args(ChartName))}")
        chart: Chart = getattr(SearchCharts(self._found, read_with_details(self._found)), name)()
        if chart.figure is None:
            raise ConfigError(f"plot({name!r}) has nothing to draw yet. {chart.caption}")
        return Plot(chart).figure

    @checked
    def retrain(
        self,
        folder: Path | str | None = None,
        *,
        top: Count | None = None,
        reruns: Count | None = None,
        rerun_epochs: Count | None = None,
        models: Count | None = None,
        epochs: Count | None = None,
        max_parameters: Count | None = None,
        force: bool = False,
        device: str = "auto",
        workers: Count | None = None,
    ) -> Winner:
        """Retrain the best configurations, freeze the winner's recipe, train final models by it, and test each once.

        An interrupt hands the running trainings back; the same call resumes them. If the result is there, it is read.
        None leaves a setting as the study's table `[retrain]` has it.

        Args:
            folder: of the result; None means STUDY-best.
            top: candidates; 1 takes the best as it is.
            reruns: of each candidate, on fresh seeds and splits.
            rerun_epochs: epochs of a rerun.
            models: final models.
            epochs: of a final model.
            max_parameters: only nets that are not larger.
            force: replace a result in `folder`.
            device: as for `run`.
            workers: as for `run`.

        Raises:
            KmnistSearchError: something cannot be used, or did not finish.
            KeyboardInterrupt: after an interrupt.
        """
        folder = result_folder_of(self.name) if folder is None else Path(folder)
        asked = RetrainOptions(
            top_k=top,
            reruns=reruns,
            rerun_epochs=rerun_epochs,
            models=models,
            epochs=epochs,
            max_parameters=max_parameters,
        )
        options = RunOptions(storage_url=self._storage, device=device, workers=workers)
        check_device(options)
        devices = devices_of(options, insist_on_workers=workers is not None)
        desk = Desk(console=Console(), devices=devices, resume="retrain() again, as it was")
        try:
            metrics = retrain(desk, self._found, asked, options, folder, force=force)
        except StoppedError:
            raise KeyboardInterrupt("all trainings are handed back; the same call resumes them") from None
        return Winner(folder=folder, metrics=metrics)

    def __repr__(self) -> str:
        return f"<Study {self.name!r} in {self._found.storage.shown_url}: {self._summary()}>"

    def _repr_html_(self) -> str:
        best = ""
        if find_spec("pandas") is not None and self._found.counts().complete:
            best = self.best(5).to_html(index=False)
        return f"<p><b>study {escape(self.name)}</b> {escape(self._summary())}</p>{best}"

    def _summary(self) -> str:
        progress = status_of(self._found).progress
        done = f"{progress.counts.finished} of {count(progress.total, 'trial')} finished"
        return done if progress.is_plan else f"{done}; best: {best_text(progress)}"


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> "pd.DataFrame":
    """Return rows as a table; one without rows has these columns."""
    try:
        import pandas as pd
    except ImportError:
        raise ConfigError("tables need pandas: pip install 'kmnist-search[notebook]'") from None
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(columns))
