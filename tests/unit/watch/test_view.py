"""The picture of a study that is watched, as a terminal shows it: whole, cut, in colours, in ASCII."""

import io
import math
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console
from rich.screen import Screen
from rich.text import Text

from kmnist_search.study.status import Status, TrialFailure
from kmnist_search.terminal.layout import Page, shared_out
from kmnist_search.terminal.listings import failure_kinds
from kmnist_search.terminal.sparkline import bounds, fitted, sparkline
from kmnist_search.watch.view import Outage, WatchView
from tests.support import watched
from tests.support.recorded import assert_recorded

STATES = {
    "begun": watched.just_begun(),
    "middle": watched.in_the_middle(),
    "failures": watched.in_the_middle(failures=7),
    "huge": watched.huge(),
    "over": watched.over(),
}
AWAY = Outage(reason="connection refused", since=watched.NOW - timedelta(seconds=75))


def _view(status: Status | None, *, outage: Outage | None = None) -> WatchView:
    return WatchView(
        name="kmnist",
        storage="postgresql+psycopg://me@server/kmnist",
        now=watched.NOW,
        status=status,
        seen_at=watched.NOW if status else None,
        outage=outage,
    )


def _drawn(
    view: WatchView, width: int = 80, height: int = 24, *, encoding: str = "utf-8", colours: bool = False
) -> str:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, newline="\n") as file:
        console = Console(
            file=file,
            width=width,
            height=height,
            force_terminal=colours,
            color_system="standard" if colours else None,
            _environ={},
        )
        console.print(Screen(view), end="")
        file.flush()
        return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 45)])
def test_it_is_as_recorded(state: str, width: int, height: int) -> None:
    lines = _drawn(_view(STATES[state]), width, height).splitlines()
    assert len(lines) == height
    assert_recorded(f"watch-{state}-{width}.txt", "".join(f"{line.rstrip()}\n" for line in lines))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("width", "height"), [(80, 24), (20, 8), (100, 30), (300, 100)])
def test_it_never_says_more_than_fits_and_always_how_to_leave(state: str, width: int, height: int) -> None:
    lines = _drawn(_view(STATES[state]), width, height).splitlines()
    assert [len(line) for line in lines] == [width] * height
    if height >= 24:
        assert lines[-2].startswith(" Ctrl-C leaves")


@pytest.mark.parametrize("state", STATES)
def test_where_only_ascii_is_shown_it_is_ascii(state: str) -> None:
    drawn = _drawn(_view(STATES[state]), encoding="ascii")
    assert drawn.isascii()
    assert [len(line) for line in drawn.splitlines()] == [80] * 24


def test_a_database_that_is_away_is_told_over_the_last_picture_which_is_dimmed() -> None:
    lines = _drawn(_view(STATES["middle"], outage=AWAY)).splitlines()
    assert lines[0].startswith(" study kmnist  as last seen  seen at 14:03:22")
    assert lines[1].rstrip() == " the database is away for 1 min 15 s, trying again: connection refused"
    assert lines[2].startswith(" 40 of 100 finished")
    assert len(lines) == 24
    coloured = _drawn(_view(STATES["middle"], outage=AWAY), colours=True).splitlines()
    at_work = next(line for line in coloured if "epoch 10/30" in line)
    assert at_work.startswith("\x1b[2m")


def test_before_the_first_look_it_says_that_it_looks_or_why_it_cannot() -> None:
    assert _drawn(_view(None)).splitlines()[1].rstrip() == " looking ..."
    lines = _drawn(_view(None, outage=AWAY)).splitlines()
    assert "the database is away for 1 min 15 s" in lines[1]
    assert "looking" not in lines[2]


def test_time_left_is_told_only_where_something_runs() -> None:
    status = STATES["middle"]
    assert "about 11 min left, done at 14:14  300 trials/hour" in _drawn(_view(status))
    counts = replace(status.progress.counts, running=0, waiting=60)
    paused = replace(status, progress=replace(status.progress, counts=counts), running=[])
    shown = _drawn(_view(paused))
    assert "not known while nothing runs" in shown
    assert "To resume: kmnist-search worker kmnist, or run" in shown
    assert "left" not in shown


def test_the_time_left_ticks_and_the_end_stays_between_two_looks() -> None:
    view = _view(STATES["middle"])
    assert "about 11 min left, done at 14:14" in _drawn(view)
    assert "about 10 min left, done at 14:14" in _drawn(replace(view, now=watched.NOW + timedelta(seconds=60)))
    assert "about 0 s left, done at 14:14" in _drawn(replace(view, now=watched.NOW + timedelta(hours=1)))


def test_a_database_that_is_silent_is_told_before_it_is_known_to_be_away() -> None:
    view = _view(STATES["middle"])
    assert "no answer" not in _drawn(replace(view, now=watched.NOW + timedelta(seconds=19)))
    assert "running  no answer for 25 s" in _drawn(replace(view, now=watched.NOW + timedelta(seconds=25)))


def test_trials_ahead_of_the_best_come_first() -> None:
    lines = _drawn(_view(STATES["huge"])).splitlines()
    first = next(index for index, line in enumerate(lines) if "256 trials running" in line)
    assert "103 ahead of where the best was" in lines[first]
    assert all("  ahead  " in line for line in lines[first + 1 : first + 3])
    assert lines[first + 3].strip() == "and 254 more"


def test_what_an_error_says_does_nothing_to_the_terminal() -> None:
    failure = replace(watched.failure(1), reason="bad\x1b[2J\x07 things\n\tand more")
    shown = _drawn(_view(replace(STATES["failures"], failures=[failure])))
    assert "bad [2J things and more" in shown
    assert "\x1b" not in shown


def test_what_a_user_named_is_not_taken_for_markup() -> None:
    name = "[red]study[/red] [link]"
    shown = _drawn(replace(_view(STATES["middle"]), name=name))
    assert f" study {name}  running" in shown


def test_failures_are_grouped_by_reason_whatever_figures_it_has_the_newest_first() -> None:
    reasons = {1: "needs 3.5 GiB", 4: "loss is nan", 6: "needs 12 GiB", 9: "loss is nan"}
    failures = [
        TrialFailure(number=number, outcome="failed", reason=reason, traceback="") for number, reason in reasons.items()
    ]
    kinds = failure_kinds(failures)
    assert [[each.number for each in kind] for kind in kinds] == [[9, 4], [6, 1]]
    assert [kind[0].reason for kind in kinds] == ["loss is nan", "needs 12 GiB"]


def test_a_room_is_shared_out_until_all_have_what_they_want() -> None:
    assert shared_out([5, 2, 9], 30) == [5, 2, 9]
    assert shared_out([5, 2, 9], 10) == [4, 2, 4]
    assert shared_out([0, 7], 3) == [0, 3]
    assert shared_out([4, 4], 0) == [0, 0]


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (0, []),
        (1, ["title"]),
        (2, ["title", "a"]),
        (3, ["title", "a", " and 3 more"]),
        (4, ["title", "a", "b", " and 2 more"]),
        (5, ["title", "a", "b", "c", "d"]),
    ],
)
def test_what_is_left_out_of_a_section_is_counted(room: int, shown: list[str]) -> None:
    page = Page(width=12, ascii_only=False)
    section = page.section(Text("title"), [Text(line) for line in "abcd"], room)
    assert [line.plain.partition(" ─")[0] for line in section] == shown


def test_wide_characters_take_two_columns() -> None:
    page = Page(width=10, ascii_only=False)
    rows = [[Text("ひらがな"), Text("x")], [Text("ab"), Text("y")]]
    assert [line.plain for line in page.columns(rows)] == [" ひらがな…", " ab      …"]
    assert [line.plain for line in replace(page, width=12).columns(rows)] == [" ひらがな  x", " ab        y"]


def test_a_curve_that_is_too_long_keeps_its_end() -> None:
    assert fitted([1.0, 2.0], 5) == [1.0, 2.0]
    assert fitted([float(number) for number in range(1, 101)], 4) == [25.0, 50.0, 75.0, 100.0]
    assert fitted([float(number) for number in range(1, 8)], 3) == [2.0, 4.0, 7.0]


def test_a_curve_has_a_character_a_value_also_in_ascii() -> None:
    values = [0.0, 0.5, 1.0, math.nan]
    assert sparkline(values, (0.0, 1.0)) == "▁▅█·"
    assert sparkline(values, (0.0, 1.0), ascii_only=True) == "_=#!"
    assert sparkline([2.0, 2.0], (2.0, 2.0)) == "▁▁"
    assert bounds([[1.0, math.inf], [], [-2.0]]) == (-2.0, 1.0)
    assert bounds([[math.nan]]) is None
