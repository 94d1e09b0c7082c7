"""How many trainings a GPU does best side by side. Knows nothing of GPUs or trials: it sees work done, and clocks."""

from dataclasses import dataclass

from kmnist_search.config import TrialConfig
from kmnist_search.config.cost import flops_per_image

#: A step takes as long as its arithmetic and so much more. By two nets on one H200, CUDA graphs, one at a time: 1.9 ms
#: a step of 99 GFLOP, 2.97 ms a step of 189 GFLOP; the line through both has 0.73 ms, worth 61 GFLOP, at none.
FLOPS_OF_A_STEP = 6e10
#: Beyond this several small trainings only wait for the one thread that drives them (reasoned, not measured).
MOST_LANES = 16
#: One more training is worth its memory if the pace grows by more than this.
WORTHWHILE = 1.05
#: A window is at least so long, with so many epochs a trial, so that several nets have their say in it.
WINDOW_SECONDS = 10.0
WINDOW_EPOCHS = 4


def epoch_cost(config: TrialConfig, train_images: int) -> float:
    """Return what an epoch costs a GPU, in floating-point operations, to compare trainings by."""
    steps = train_images // config.batch.batch_size
    return steps * (3.0 * config.batch.batch_size * flops_per_image(config.model) + FLOPS_OF_A_STEP)


@dataclass(frozen=True, kw_only=True)
class Work:
    """An epoch's worth of work, done evenly between two times."""

    cost: float
    begun: float
    ended: float

    def done(self, start: float, end: float) -> float:
        """Return how much of it was done between `start` and `end`."""
        common = min(self.ended, end) - max(self.begun, start)
        return self.cost * max(common, 0.0) / max(self.ended - self.begun, 1e-9)


class Window:
    """Some time from `start` on, in which the pace is measured."""

    def __init__(self, start: float) -> None:
        self.start, self.lengths = start, 1
        self._end: float | None = None
        self._work: list[Work] = []

    def pace(self, work: Work, trial_runs: int) -> float | None:
        """Take in what was done, and return the pace once the window is over and all that spans its end is done."""
        self._work.append(work)
        if self._end is None:
            lengths = min((work.ended - self.start) / WINDOW_SECONDS, len(self._work) / (WINDOW_EPOCHS * trial_runs))
            self._end = work.ended if lengths >= self.lengths else None
            return None
        if work.ended - self._end < max(work.ended - work.begun for work in self._work):
            return None
        return sum(work.done(self.start, self._end) for work in self._work) / (self._end - self.start)

    def double(self) -> None:
        """Go on for as long again."""
        self.lengths, self._end = 2, None


class Packing:
    """Finds the number of trial_runs: one more as long as the pace grows, then one back, and there it stays.

    The pace is the cost of the epochs done in a window by its length. One window that shows no growth is doubled
    before it is believed. Staying is on purpose: the pace also moves with the nets that happen to train, and a search
    for the best number that never ends would follow that.

    Attributes:
        trial_runs: how many trainings shall be at work.
        most: how many that will ever be.
    """

    def __init__(self, *, start: int, most: int) -> None:
        self.trial_runs, self.most = start, most
        self._is_settled = start >= most
        self._best_pace = 0.0
        self._window: Window | None = None

    @classmethod
    def fixed(cls, trial_runs: int) -> "Packing":
        """Return one that never measures, and never uses more than `trial_runs`."""
        return cls(start=trial_runs, most=trial_runs)

    @classmethod
    def measured(cls) -> "Packing":
        """Return one that begins with four trials, which have always paid on an H200, and finds out."""
        return cls(start=4, most=MOST_LANES)

    def epoch_done(self, cost: float, *, seconds: float, at_work: int, now: float) -> None:
        """Take in that an epoch of this cost, which took so long, was done while so many trainings were at work."""
        if self._is_settled:
            return
        if self._window is None:  # not before all trials are at work; a short gap between two trials is theirs
            self._window = Window(now) if at_work >= self.trial_runs else None
            return
        pace = self._window.pace(Work(cost=cost, begun=now - seconds, ended=now), self.trial_runs)
        if pace is None:
            return
        if pace > self._best_pace * WORTHWHILE:
            self._best_pace = pace
            self._use(min(self.trial_runs + 1, self.most), is_settled=self.trial_runs == self.most)
        elif self._window.lengths == 1:
            self._window.double()
        else:
            self._use(self.trial_runs - 1, is_settled=True)

    def ran_out_of_memory(self, at_work: int) -> None:
        """Never again use as many trials as were at work when memory ran out."""
        self.most = max(1, min(self.most, at_work - 1))
        if self.trial_runs >= self.most:
            self._use(self.most, is_settled=True)

    def _use(self, trial_runs: int, *, is_settled: bool) -> None:
        self.trial_runs, self._is_settled, self._window = trial_runs, is_settled, None
