"""Whole studies in real databases of both kinds: exported, imported, copied, renamed, deleted."""

import io
import json
import math
import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError

from kmnist_search.archive import records
from kmnist_search.archive.studies import (
    Arrival,
    copy_study,
    delete_study,
    export_study,
    import_study,
    rename_study,
    write_study,
)
from kmnist_search.database import tables
from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.errors import (
    ArchiveError,
    ConfigError,
    StudyExistsError,
    StudyFileError,
    StudyInUseError,
    StudyNotFoundError,
)
from kmnist_search.study.opening import find_study, open_study, study_names
from kmnist_search.study.study import CHECKPOINTS_KEY, FILE_KEY
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import SearchFile, StudyFile
from tests.support.command import TINY_STUDY
from tests.support.recorded import FOLDER

INF, NAN = math.inf, math.nan
DISTRIBUTIONS = {
    "rate": FloatDistribution(1e-4, 1e-2, log=True),
    "dim": CategoricalDistribution([8, 16, "ぬ", None]),
    "num_blocks": IntDistribution(1, 9, step=2),
}
#: In the order of their numbers, one of each kind that a study can hold.
TRIALS = (
    create_trial(
        value=0.1 + 0.2,
        params={"rate": 0.0012345678901234567, "dim": "ぬ", "num_blocks": 3},
        distributions=DISTRIBUTIONS,
        intermediate_values={1: 0.1, 2: 1e-300, 10: 0.30000000000000004},
        user_attrs={"versions": {"torch": "2"}, "val_loss_curve": [0.5, NAN, -INF], "device": "ぬ\n\u2028\x00😀"},
        system_attrs={"completed_rung_0": 0.1},
    ),
    create_trial(value=-INF),
    create_trial(state=TrialState.PRUNED, value=INF, intermediate_values={1: NAN, 2: INF, 3: -INF}),
    create_trial(state=TrialState.FAIL, user_attrs={"reason": 'RuntimeError: "no"', "traceback": "Traceback ...\n"}),
    create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"dim": 8}}),
)
RUNNING = create_trial(
    state=TrialState.RUNNING,
    params={"dim": 16},
    distributions={"dim": DISTRIBUTIONS["dim"]},
    intermediate_values={1: 0.5},
    user_attrs={"attempts": [{"host": "here", "pid": 7}]},
)


@pytest.fixture
def storage(any_storage_url: str) -> Storage:
    return open_storage(any_storage_url, create=True)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def cleared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A database that the tests share, each of which leaves it empty."""
    if request.param == "sqlite":
        return open_storage(f"sqlite:///{tmp_path_factory.mktemp('cleared') / 'search.db'}", create=True)
    return open_storage(request.getfixturevalue("_postgres_url")(), create=True)


@pytest.fixture(scope="module")
def lines(cleared: Storage, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The file of an exported study, line by line."""
    path = tmp_path_factory.mktemp("exported") / "tiny.toml"
    path.write_text(TINY_STUDY)
    open_study(cleared, load(path)).touch()
    optuna.load_study(study_name="tiny", storage=cleared.rdb).add_trials(TRIALS)
    exported = _exported(cleared, "tiny").decode()
    delete_study(cleared, "tiny")
    return [f"{line}\n" for line in exported.split("\n")[:-1]]


@pytest.fixture
def other(request: pytest.FixtureRequest, storage: Storage, tmp_path: Path) -> Storage:
    """An empty database of the other kind."""
    if storage.engine.dialect.name == "sqlite":
        return open_storage(request.getfixturevalue("_postgres_url")(), create=True)
    return open_storage(f"sqlite:///{tmp_path / 'other.db'}", create=True)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few dozens of trials take several batches."""
    monkeypatch.setattr(records, "BATCH", 50)


@pytest.fixture
def file(tiny_study: Path) -> StudyFile:
    return load(tiny_study)


@pytest.fixture
def begin(storage: Storage, tiny_study: Path) -> Callable[..., None]:
    """Make a study called `name` that holds `trials`."""

    def begin(name: str = "tiny", trials: Iterable[FrozenTrial] = TRIALS) -> None:
        open_study(storage, load(tiny_study, overrides=[f"study.name={name}"])).touch()
        optuna.load_study(study_name=name, storage=storage.rdb).add_trials(trials)

    return begin


def _facts(storage: Storage, name: str) -> str:
    """Return all that optuna knows of a study, to the last digit, but what makes it another study.

    That is its name, its folder of checkpoints, and the ids of its trials.
    """
    study = optuna.load_study(study_name=name, storage=open_storage(_url(storage), create=False).rdb)
    settings = dict(study.user_attrs[FILE_KEY])
    assert settings["study"].pop("name") == name
    attributes = sorted({**study.user_attrs, FILE_KEY: settings, CHECKPOINTS_KEY: ""}.items())
    return repr((study.directions, study.metric_names, attributes, [_trial_facts(trial) for trial in study.trials]))


def _trial_facts(trial: FrozenTrial) -> dict[str, Any]:
    unordered = ("_user_attrs", "_system_attrs", "intermediate_values")
    return {
        key: sorted(value.items()) if key in unordered else value
        for key, value in vars(trial).items()
        if key != "_trial_id"
    }


def _url(storage: Storage) -> str:
    return storage.url.render_as_string(hide_password=False)


def _rows(storage: Storage) -> dict[str, int]:
    """Return how many rows of studies and trials the database has, table by table."""
    with storage.reading() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in tables.trials.metadata.sorted_tables
            if {"study_id", "trial_id"} & set(table.c.keys())
        }


def _exported(storage: Storage, name: str) -> bytes:
    out = io.BytesIO()
    write_study(storage, name, out)
    return out.getvalue()


def _exported_but_checkpoints(storage: Storage, name: str) -> bytes:
    folder = json.dumps(find_study(storage, name).checkpoint_dir.name).encode()
    return _exported(storage, name).replace(folder.replace(b'"', b'\\"'), b"")


def test_a_study_comes_back_from_its_file_as_it_was(
    storage: Storage, begin: Callable[..., None], tmp_path: Path
) -> None:
    begin()
    assert export_study(storage, "tiny", tmp_path / "tiny.jsonl") == len(TRIALS)
    arrival = import_study(storage, tmp_path / "tiny.jsonl", "again")
    assert arrival == Arrival(name="again", num_trials=len(TRIALS), num_requeued=0)
    assert _facts(storage, "again") == _facts(storage, "tiny")
    assert _exported(storage, "again").splitlines()[1:] == _exported(storage, "tiny").splitlines()[1:]
    before = _facts(storage, "tiny")
    delete_study(storage, "tiny")
    import_study(storage, tmp_path / "tiny.jsonl")
    assert _facts(storage, "tiny") == before


def test_a_copy_in_the_other_kind_of_database_is_equal_byte_for_byte(
    storage: Storage, other: Storage, begin: Callable[..., None]
) -> None:
    begin()
    arrival = copy_study(storage, "tiny", other)
    assert arrival == Arrival(name="tiny", num_trials=len(TRIALS), num_requeued=0)
    assert _facts(other, "tiny") == _facts(storage, "tiny")
    assert _exported_but_checkpoints(other, "tiny") == _exported_but_checkpoints(storage, "tiny")
    copy_study(other, "tiny", storage, "and-back")
    assert _facts(storage, "and-back") == _facts(storage, "tiny")


def test_a_study_may_be_copied_beside_itself(storage: Storage, begin: Callable[..., None]) -> None:
    begin()
    copy_study(storage, "tiny", storage, "tiny-2")
    assert _facts(storage, "tiny-2") == _facts(storage, "tiny")
    assert set(study_names(storage)) == {"tiny", "tiny-2"}


def test_a_copied_study_resumes_with_its_study_file(
    storage: Storage, other: Storage, begin: Callable[..., None], file: StudyFile
) -> None:
    begin()
    copy_study(storage, "tiny", other)
    assert len(open_study(other, file).optuna.get_trials()) == len(TRIALS)


def test_a_study_that_an_earlier_release_exported_is_imported_and_resumed(storage: Storage) -> None:
    exported = FOLDER / "exports" / "search.jsonl"
    assert import_study(storage, exported).name == "tiny"
    file = find_study(storage, "tiny").file
    assert isinstance(file, SearchFile)
    again = open_study(storage, file.model_copy(update={"enqueue": ()}))
    assert again.settings == json.loads(
        json.loads(exported.read_text().splitlines()[0])["study"]["user_attrs"][FILE_KEY]
    )
    assert file.config(again.complete()[0].params).train.epochs == 2


def test_a_comparison_of_an_earlier_release_can_be_read_and_says_how_to_begin_another(storage: Storage) -> None:
    study = find_study(storage, import_study(storage, FOLDER / "exports" / "comparison.jsonl").name)
    assert study.counts().waiting == 1
    with pytest.raises(StudyFileError, match=r"earlier version. Begin another: kmnist-search references --name"):
        _ = study.file


def test_the_file_is_strict_json_one_trial_a_line(storage: Storage, begin: Callable[..., None]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    begin()
    header, *trials = [json.loads(line, parse_constant=refuse) for line in _exported(storage, "tiny").splitlines()]
    assert header["format"] == "kmnist-search study"
    assert header["study"]["num_trials"] == len(TRIALS)
    assert [trial["number"] for trial in trials] == list(range(len(TRIALS)))
    assert trials[0]["params"]["dim"][0] == 2.0  # optuna's internal number: the third choice
    assert trials[0]["values"] == [0.1 + 0.2]
    assert trials[0]["datetime_start"].endswith("+00:00")
    assert trials[1]["values"] == ["-Infinity"]
    assert trials[2]["intermediate_values"] == {"1": "NaN", "2": "Infinity", "3": "-Infinity"}


def test_a_trial_that_ran_waits_where_it_arrives_and_keeps_what_it_had(
    storage: Storage, other: Storage, begin: Callable[..., None], tmp_path: Path
) -> None:
    begin(trials=[*TRIALS, RUNNING])
    arrival = copy_study(storage, "tiny", other)
    assert arrival == Arrival(name="tiny", num_trials=6, num_requeued=1)
    (ran,) = [trial for trial in optuna.load_study(study_name="tiny", storage=other.rdb).trials if trial.number == 5]
    assert ran.state == TrialState.WAITING
    assert (ran.params, ran.intermediate_values) == ({"dim": 16}, {1: 0.5})
    assert ran.user_attrs == {"attempts": [{"host": "here", "pid": 7}]}
    assert '"state":"RUNNING"' in _exported(storage, "tiny").decode()
    export_study(storage, "tiny", tmp_path / "tiny.jsonl")
    assert import_study(other, tmp_path / "tiny.jsonl", "again").num_requeued == 1
    assert _exported(other, "again").splitlines()[1:] == _exported(other, "tiny").splitlines()[1:]


@pytest.mark.usefixtures("small_batches")
def test_the_ids_of_many_trials_are_in_the_order_of_their_numbers(
    storage: Storage, other: Storage, begin: Callable[..., None]
) -> None:
    begin(trials=[create_trial(value=float(number)) for number in range(110)])
    copy_study(storage, "tiny", other)
    trials = tables.trials
    with other.reading() as connection:
        numbers = connection.scalars(select(trials.c.number).order_by(trials.c.trial_id)).all()
    assert numbers == list(range(110))
    assert _exported_but_checkpoints(other, "tiny") == _exported_but_checkpoints(storage, "tiny")


def test_a_study_without_trials_travels_too(storage: Storage, other: Storage, begin: Callable[..., None]) -> None:
    begin(trials=[])
    assert copy_study(storage, "tiny", other) == Arrival(name="tiny", num_trials=0, num_requeued=0)
    assert _exported_but_checkpoints(other, "tiny") == _exported_but_checkpoints(storage, "tiny")


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
ATTRIBUTES = st.dictionaries(ANY_TEXT, ANY_JSON, max_size=4)
WIDE = FloatDistribution(-1e308, 1e308)


@st.composite
def any_trial(draw: st.DrawFn) -> FrozenTrial:
    state = draw(st.sampled_from(TrialState))
    value = draw(st.floats(allow_nan=False))
    params = draw(st.dictionaries(ANY_TEXT, st.floats(WIDE.low, WIDE.high), max_size=3))
    return create_trial(
        state=state,
        value=value if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params=params,
        distributions=dict.fromkeys(params, WIDE),
        intermediate_values=draw(st.dictionaries(st.integers(0, 10**6), st.floats(), max_size=5)),
        user_attrs=draw(ATTRIBUTES),
        system_attrs=draw(ATTRIBUTES),
    )


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trials=st.lists(any_trial(), max_size=6))
def test_whatever_a_study_holds_comes_back(
    storage: Storage, begin: Callable[..., None], tmp_path: Path, trials: list[FrozenTrial]
) -> None:
    begin(trials=trials)
    export_study(storage, "tiny", tmp_path / "tiny.jsonl")
    arrival = import_study(storage, tmp_path / "tiny.jsonl", "again")
    waiting = _facts(storage, "tiny").replace("<TrialState.RUNNING: 0>", "<TrialState.WAITING: 4>")
    assert _facts(storage, "again") == waiting
    assert arrival.num_requeued == sum(trial.state == TrialState.RUNNING for trial in trials)
    for name in ("tiny", "again"):
        delete_study(storage, name, force=True)
    assert set(_rows(storage).values()) == {0}


def _line(number: int, change: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines[: number - 1], change(lines[number - 1]), *lines[number:]]


def _with(number: int, old: str, new: str) -> Callable[[list[str]], list[str]]:
    def change(line: str) -> str:
        assert old in line
        return line.replace(old, new, 1)

    return _line(number, change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:-1], ": ends after 4 of 5 trials: a part is missing."),
        (lambda lines: lines[:1], ": ends after 0 of 5 trials: a part is missing."),
        (lambda lines: [], ", line 1: is no header of an exported study"),
        (lambda lines: lines[1:], ", line 1: is no header of an exported study"),
        (lambda lines: ["[1, 2]\n"], ", line 1: is no header of an exported study"),
        (lambda lines: ["[" * 100_000], ", line 1: is no header of an exported study"),
        (_line(6, lambda line: line[:40]), ", line 6: Invalid JSON: EOF while parsing"),
        (_line(3, lambda line: "\n"), ", line 3: Invalid JSON: EOF while parsing"),
        (_line(3, lambda line: line + line), ", line 4: is trial 1 where trial 2 should be."),
        (lambda lines: [*lines, lines[-1].replace('"number":4', '"number":5')], ", line 7: is one more than the 5 "),
        (lambda lines: [lines[0], *lines[2:]], ", line 2: is trial 1 where trial 0 should be."),
        (_with(1, '"version":1', '"version":2'), ", line 1: is of format version 2, written by kmnist-search 0.1.0; "),
        (_with(1, '"MAXIMIZE"', '"UP"'), ", line 1: study.directions.0: Input should be 'MINIMIZE' or 'MAXIMIZE'."),
        (_with(1, '"study_file"', '"settings"'), ", line 1: study.user_attrs.study_file: the settings of the study "),
        (_with(1, r"\"epochs\"", r"\"epoch\""), ", line 1: study.user_attrs.study_file.train.epochs: Field required."),
        (_with(2, '"COMPLETE"', '"DONE"'), ", line 2: state: Input should be 'RUNNING', 'COMPLETE', "),
        (_with(2, '"values":[0.30000000000000004]', '"values":[]'), "values: a complete trial has at least one."),
        (_with(2, '"values":[', '"values":[0.5,'), ", line 2: values: has 2 for a study of 1 objectives."),
        (_with(2, '"values":[0.30000000000000004]', '"values":["NaN"]'), "line 2: values: NaN is no value of a trial."),
        (_with(2, '"values":[0.3', '"values":["0.3",0.3'), ", line 2: values.0: Input should be a valid number."),
        (_with(2, '"dim":[2.0', '"dim":[4.0'), ", line 2: params.dim: 4.0 is not of the distribution {"),
        (_with(2, "IntDistribution", "OddDistribution"), ', line 2: params.num_blocks: \'{"name": "OddDistr'),
        (_with(2, '"10":', '"ten":'), ", line 2: intermediate_values.ten.[key]: Input should be a valid integer"),
        (_with(2, "+00:00", ""), ", line 2: datetime_start: Input should have timezone info."),
        (_with(2, r'"device":"\"', r'"device":"'), ", line 2: user_attrs.device: Expecting value"),
        (_with(2, '"number"', '"extra":1,"number"'), ", line 2: extra: Extra inputs are not permitted."),
        (_with(2, '"number":0', '"number":true'), ", line 2: number: Input should be a valid integer."),
    ],
)
def test_a_damaged_file_is_refused_with_its_line_and_nothing_arrives(
    cleared: Storage, lines: list[str], tmp_path: Path, damage: Callable[[list[str]], list[str]], message: str
) -> None:
    path = tmp_path / "tiny.jsonl"
    path.write_text("".join(damage(lines)))
    with pytest.raises(ArchiveError) as error:
        import_study(cleared, path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert len(str(error.value)) < 600
    assert set(_rows(cleared).values()) == {0}
    path.write_text("".join(lines))
    import_study(cleared, path)
    assert study_names(cleared) == ["tiny"]
    delete_study(cleared, "tiny")


def test_a_file_that_is_something_else_or_nowhere_is_refused(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(bytes(range(256)) * 1000)
    with pytest.raises(ArchiveError, match=r"image\.png, line 1: is no header of an exported study"):
        import_study(storage, tmp_path / "image.png")
    with pytest.raises(ArchiveError, match=r"none\.jsonl: cannot be read: No such file or directory\."):
        import_study(storage, tmp_path / "none.jsonl")
    with pytest.raises(ArchiveError, match=r"cannot be read: Is a directory\."):
        import_study(storage, tmp_path)


@pytest.mark.usefixtures("small_batches")
def test_a_database_that_fails_in_the_middle_is_left_as_it_was(
    storage: Storage, other: Storage, begin: Callable[..., None]
) -> None:
    begin(trials=[create_trial(value=float(number)) for number in range(110)])
    with other.engine.begin() as connection:  # only in the second batch of trials
        if connection.dialect.name == "sqlite":
            raising = "SELECT RAISE(ABORT, 'no space left')"
            connection.execute(
                text(f"CREATE TRIGGER full BEFORE INSERT ON trials WHEN NEW.number = 70 BEGIN {raising}; END")
            )
        else:
            connection.execute(text("ALTER TABLE trials ADD CONSTRAINT no_space_left CHECK (number <> 70)"))
    with pytest.raises(DBAPIError, match=r"no.space.left"):
        copy_study(storage, "tiny", other)
    assert set(_rows(other).values()) == {0}


def test_a_file_that_cannot_be_written_to_its_end_leaves_the_old_one(
    storage: Storage, begin: Callable[..., None], tmp_path: Path
) -> None:
    begin(trials=[create_trial(value=0.5, user_attrs={"curve": list(range(1000))}) for _ in range(100)])
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "tiny.jsonl").write_text("what was there")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # as on a disk that becomes full
    try:
        with pytest.raises(ArchiveError, match=r"tiny\.jsonl: cannot be written: File too large\."):
            export_study(storage, "tiny", folder / "tiny.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in folder.iterdir()] == ["tiny.jsonl"]
    assert (folder / "tiny.jsonl").read_text() == "what was there"


def test_a_folder_that_is_not_there_is_no_place_for_a_file(
    storage: Storage, begin: Callable[..., None], tmp_path: Path
) -> None:
    begin()
    with pytest.raises(ArchiveError, match=r"none/tiny\.jsonl: cannot be written: No such file or directory\."):
        export_study(storage, "tiny", tmp_path / "none" / "tiny.jsonl")
    with pytest.raises(ArchiveError, match=r"cannot be written: Is a directory\."):
        export_study(storage, "tiny", tmp_path)


@pytest.mark.usefixtures("small_batches")
def test_an_export_shows_one_moment_of_a_study_at_work(storage: Storage, begin: Callable[..., None]) -> None:
    begin(trials=[create_trial(value=float(number)) for number in range(60)])
    before = _exported(storage, "tiny")
    worker = optuna.load_study(study_name="tiny", storage=open_storage(_url(storage), create=False).rdb)

    class Disturbed(io.BytesIO):
        def writelines(self, lines: Iterable[Any], /) -> None:
            for number, line in enumerate(lines):
                self.write(line)
                if number == 1:  # while later trials are not read yet
                    worker.add_trial(create_trial(value=1.0))

    out = Disturbed()
    write_study(storage, "tiny", out)
    assert out.getvalue() == before
    assert len(_exported(storage, "tiny").splitlines()) == 62


def test_a_name_that_is_taken_is_refused_and_the_study_there_is_left_alone(
    storage: Storage, begin: Callable[..., None], tmp_path: Path
) -> None:
    begin("one")
    begin("two", trials=[])
    export_study(storage, "one", tmp_path / "one.jsonl")
    before = _facts(storage, "two")
    ways: list[Callable[[], object]] = [
        lambda: import_study(storage, tmp_path / "one.jsonl", "two"),
        lambda: copy_study(storage, "one", storage, "two"),
    ]
    for arriving in ways:
        with pytest.raises(StudyExistsError) as error:
            arriving()
        assert str(error.value) == (
            f"{storage.shown_url} has a study 'two' already. Put it there under another name: --name two-2"
        )
    with pytest.raises(StudyExistsError, match=r"has a study 'two' already\. Choose another name\."):
        rename_study(storage, "one", "two")
    assert _facts(storage, "two") == before
    assert set(study_names(storage)) == {"one", "two"}


def test_a_name_that_no_study_file_could_have_is_refused(
    storage: Storage, begin: Callable[..., None], tmp_path: Path
) -> None:
    begin()
    export_study(storage, "tiny", tmp_path / "tiny.jsonl")
    ways: list[Callable[[str], object]] = [
        lambda name: import_study(storage, tmp_path / "tiny.jsonl", name),
        lambda name: copy_study(storage, "tiny", storage, name),
        lambda name: rename_study(storage, "tiny", name),
    ]
    for giving in ways:
        for name in ("", "two words", "-x", "a/b", "x" * 101):
            with pytest.raises(ConfigError, match="cannot be the name of a study: use at most 100 letters"):
                giving(name)
    assert study_names(storage) == ["tiny"]


def test_a_renamed_study_is_the_same_under_its_new_name(
    storage: Storage, begin: Callable[..., None], tiny_study: Path
) -> None:
    begin()
    before = _facts(storage, "tiny")
    rename_study(storage, "tiny", "größer")
    assert study_names(storage) == ["größer"]
    assert _facts(storage, "größer") == before
    file = load(tiny_study, overrides=["study.name=größer"])
    assert open_study(storage, file).settings == json.loads(file.model_dump_json())


def test_a_deleted_study_leaves_nothing_and_the_others_alone(storage: Storage, begin: Callable[..., None]) -> None:
    begin("one")
    alone = _rows(storage)
    before = _facts(storage, "one")
    begin("two", trials=[*TRIALS, RUNNING])
    with storage.engine.begin() as connection:
        trial_id = connection.scalar(
            select(tables.trials.c.trial_id).where(tables.trials.c.state == TrialState.RUNNING)
        )
        lease = {"trial_id": trial_id, "token": "t", "owner": "{}", "renewed_at": 0.0, "seconds": 60.0}
        connection.execute(insert(tables.leases).values(lease))
    both = _rows(storage)
    with pytest.raises(
        StudyInUseError, match=r"study 'two' has trials that run: 5\. Stop its workers first .* --force"
    ):
        delete_study(storage, "two")
    assert _rows(storage) == both
    assert delete_study(storage, "two", force=True).num_trials == 6
    assert _rows(storage) == alone
    assert _facts(storage, "one") == before


def test_a_study_that_is_not_there_is_named_with_those_that_are(
    storage: Storage, other: Storage, begin: Callable[..., None], tmp_path: Path
) -> None:
    begin()
    ways: list[Callable[[], object]] = [
        lambda: export_study(storage, "tinny", tmp_path / "tinny.jsonl"),
        lambda: copy_study(storage, "tinny", other),
        lambda: rename_study(storage, "tinny", "two"),
        lambda: delete_study(storage, "tinny"),
    ]
    for asking in ways:
        with pytest.raises(StudyNotFoundError, match=r"no study 'tinny'\. Did you mean 'tiny'\? It contains: tiny\."):
            asking()
    assert not (tmp_path / "tinny.jsonl").exists()
    assert set(_rows(other).values()) == {0}


def test_a_study_that_another_program_made_is_not_touched(storage: Storage) -> None:
    optuna.create_study(study_name="foreign", storage=storage.rdb)
    before = _rows(storage)
    with pytest.raises(StudyNotFoundError, match="contains no study yet"):
        delete_study(storage, "foreign")
    assert _rows(storage) == before


def test_a_study_is_not_exported_onto_its_own_database(tmp_path: Path, tiny_study: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'own.db'}", create=True)
    open_study(storage, load(tiny_study))
    for name in ("own.db", "own.db-wal"):
        with pytest.raises(ArchiveError, match="is the database itself"):
            export_study(storage, "tiny", tmp_path / name)
    assert study_names(storage) == ["tiny"]
