"""The parser of study files: it checks a whole file before anything starts.

Every error names the file, the table and the key, and suggests the nearest known name for an unknown one.
"""

import copy
import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from kmnist_search.config import BLOCK_WIDTHS, HYPERPARAMETERS, Config, DataConfig, TrainConfig, describe, field_of
from kmnist_search.errors import ConfigError, StudyFileError
from kmnist_search.study_file.builtin import builtin_studies
from kmnist_search.study_file.consistency import problems
from kmnist_search.study_file.constraints import ConstraintsTable
from kmnist_search.study_file.schema import (
    RETRAINING_SUFFIX,
    TABLES,
    PlanFile,
    PlanTable,
    RetrainTable,
    SearchFile,
    StudyFile,
    StudyTable,
)
from kmnist_search.study_file.space import Choices, FloatRange, Hyperparameter, IntRange, Scalar

AnyConfig = TypeVar("AnyConfig", bound=Config)

#: What may be said of a hyperparameter in [space].
SPEC_KEYS = ("choices", "low", "high", "log", "step", "when", "each_block")


def load(path: Path, *, overrides: Sequence[str] = ()) -> SearchFile:
    """Read and check a study file.

    Args:
        path: the file.
        overrides: `table.key=value` each, which override the file; the value is TOML, or else a plain word.

    Raises:
        StudyFileError: the file or an override is wrong; the message says where, and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyFileError(f"{path}: cannot be read: {error}") from None
    builtin = {file: name for name, file in builtin_studies().items()}
    label = f"built-in study {builtin[path]}" if path in builtin else str(path)
    return of_tables(_tables(text, str(path)), source=label, default_name=path.stem, overrides=overrides)


def of_tables(
    tables: Mapping[str, Any], *, source: str, default_name: str, overrides: Sequence[str] = ()
) -> SearchFile:
    """Check the tables of a study file.

    Args:
        tables: by name.
        source: where they come from, for messages.
        default_name: name of the study if the tables give none.
        overrides: see `load`.

    Raises:
        StudyFileError: a table or an override is wrong; the message says where, and what to do.
    """
    changed = copy.deepcopy(dict(tables))
    if not changed and not overrides:
        raise StudyFileError(f"{source}: is empty. Name hyperparameters to search in [space], or fix some in [fixed].")
    for override in overrides:
        _override(changed, override)
    file = _Checker(" with ".join((source, *overrides))).checked(changed, default_name=default_name)
    if file.study.name.endswith(RETRAINING_SUFFIX):
        raise StudyFileError(
            f"a study cannot be called {file.study.name!r}: names that end in {RETRAINING_SUFFIX} are those of "
            "retrainings. Choose another --name."
        )
    return file


def loads(text: str, *, source: str, name: str) -> StudyFile:
    """Read and check the settings of a study, from a study file's text or from a plan, which has no file.

    Args:
        text: the text.
        source: name of the text in messages.
        name: name of the study if the text has none.

    Raises:
        StudyFileError: the text is wrong; the message says where, and what to do.
    """
    tables = _tables(text, source)
    if "plan" in tables.get("study", {}):
        return _Checker(source).plan(tables)
    return _Checker(source).checked(tables, default_name=name)


def checked_entry(file: SearchFile, entry: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """Return hyperparameters that were chosen by hand, checked as those in `[[enqueue]]`.

    Args:
        file: of the study.
        entry: by name; those left out are left to the sampler.
        source: where they come from, for messages.

    Raises:
        StudyFileError: one is not searched, or outside of its range.
    """
    checker = _Checker(source)
    if not entry:
        raise checker.error("enqueue", f"names no hyperparameter. There are: {', '.join(file.space)}")
    (checked,) = checker.enqueued([dict(entry)], file.space, where="enqueue")
    for place, problem in problems(file.model_copy(update={"enqueue": (checked,)})):
        raise checker.error(place, problem)
    return checked


def _tables(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyFileError(f"{source} is not TOML: {error}") from None


def _override(tables: dict[str, Any], override: str) -> None:
    place, equals, text = override.partition("=")
    table, dot, key = place.strip().partition(".")
    if not (equals and dot and table and key):
        raise StudyFileError(f"--set {override}: write it as table.key=value, for example --set train.epochs=5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    entry = tables.setdefault(table, {})
    if not isinstance(entry, dict):
        raise StudyFileError(f"--set {override}: {table!r} is not a table of the study file, so --set cannot change it")
    entry[key] = value
    if table in ("fixed", "space"):  # a hyperparameter is in one of these tables only
        tables.get("space" if table == "fixed" else "fixed", {}).pop(key, None)
    if table == "fixed":
        for known in tables.get("enqueue", []):
            known.pop(key, None)


class _Checker:
    """Turns tables into a StudyFile, or reports what is wrong with them."""

    def __init__(self, file: str) -> None:
        self.file = file

    def checked(self, tables: dict[str, Any], *, default_name: str) -> SearchFile:
        if "systems" in tables:
            raise StudyFileError(
                f"{self.file}: was made by the references of an earlier version. Begin another: "
                "kmnist-search references --name references-2"
            )
        for name, table in tables.items():
            is_table = isinstance(table, dict | list)
            self._known(name, TABLES, f"there is no table [{name}]" if is_table else f"{name!r} is in no table")
            if not isinstance(table, list if name == "enqueue" else dict):
                raise self.error(f"[{name}]", "must be a list of tables" if name == "enqueue" else "must be a table")
        if "plan" in tables.get("study", {}):
            raise StudyFileError(f"{self.file}: describes planned trainings, which cannot be run from a file.")
        study = self._table("study", {"name": default_name, **tables.get("study", {})}, StudyTable)
        data = self._table("data", tables.get("data", {}), DataConfig)
        if data.val_share == 0:
            raise self.error("[data]", "val_share: must be above 0, since trials are judged by images held out")
        fixed = self._hyperparameters("fixed", tables.get("fixed", {}), self._value)
        space = self._hyperparameters("space", tables.get("space", {}), self._hyperparameter)
        if "space" in tables and not space:
            raise self.error(
                "[space]", "is empty. Name a hyperparameter to search, or leave the table out to train [fixed] alone"
            )
        for name in space:
            if name in fixed:
                raise self.error(f"[space] {name}", "is also in [fixed]. Keep one of the two")
        file = SearchFile(
            study=study,
            data=data,
            train=self._table("train", tables.get("train", {}), TrainConfig),
            retrain=self._table("retrain", tables.get("retrain", {}), RetrainTable),
            constraints=self._table("constraints", tables.get("constraints", {}), ConstraintsTable),
            fixed=fixed,
            space=space,
            enqueue=tuple(self.enqueued(tables.get("enqueue", []), space)),
        )
        for place, problem in problems(file):
            raise self.error(place, problem)
        return file

    def plan(self, tables: dict[str, Any]) -> PlanFile:
        study = self._table("study", tables["study"], PlanTable)
        train = self._table("train", tables["train"], TrainConfig)
        space: dict[str, Hyperparameter] = {
            name: Choices(choices=tuple(spec["choices"])) if "choices" in spec else IntRange(**spec)
            for name, spec in tables["space"].items()
        }
        return PlanFile(study=study, train=train, space=space)

    def error(self, place: str, problem: str) -> StudyFileError:
        return StudyFileError(f"{self.file}: {place} {problem}.")

    def _known(self, name: str, known: Sequence[str], problem: str) -> None:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            there_are = f"There are: {', '.join(known)}." if known else "There are none."
            advice = f"Did you mean {nearest[0]!r}?" if nearest else there_are
            raise StudyFileError(f"{self.file}: {problem}. {advice}")

    def _table(self, table: str, values: dict[str, Any], kind: type[AnyConfig]) -> AnyConfig:
        for key, value in values.items():
            self._known(key, list(kind.model_fields), f"[{table}] has no key {key!r}")
            options = kind.model_fields[key].annotation
            if isinstance(value, dict) and isinstance(options, type) and issubclass(options, Config):
                for option in value:
                    self._known(option, list(options.model_fields), f"[{table}] {key} has no key {option!r}")
        try:
            return kind(**values)
        except ConfigError as error:
            raise self.error(f"[{table}]", str(error)) from None

    def _hyperparameters(
        self, table: str, values: dict[str, Any], check: Callable[[str, str, Any], Any]
    ) -> dict[str, Any]:
        for name in values:
            self._known(name, list(HYPERPARAMETERS), f"[{table}] has no hyperparameter {name!r}")
        return {name: check(f"[{table}] {name}", name, value) for name, value in values.items()}

    def _value(self, place: str, name: str, value: Any) -> Any:
        field = field_of(name)
        annotated: Any = Annotated[field.annotation, field]
        adapter: TypeAdapter[Any] = TypeAdapter(annotated, config=ConfigDict(strict=True))
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise self.error(f"{place}:", "; ".join(describe(error))) from None

    def _hyperparameter(self, place: str, name: str, spec: Any) -> Hyperparameter:
        if not isinstance(spec, dict) or not ({"choices", "low", "high"} & spec.keys()):
            raise self.error(place, f"needs {{ choices = [...] }} or {{ low = ..., high = ... }}, got {spec!r}")
        for key in spec:
            self._known(key, SPEC_KEYS, f"{place} has no key {key!r}")
        spec = dict(spec)
        when = self._when(place, name, spec.pop("when", {}))
        each_block = self._each_block(place, name, spec.pop("each_block", False))
        found = self._choices(place, name, spec) if "choices" in spec else self._range(place, name, spec)
        return found.model_copy(update={"when": when, "each_block": each_block})

    def _each_block(self, place: str, name: str, each_block: Any) -> bool:
        if not isinstance(each_block, bool):
            raise self.error(f"{place}:", f"each_block must be true or false, got {each_block!r}")
        if each_block and name not in BLOCK_WIDTHS:
            raise self.error(f"{place}:", f"each_block is for {' and '.join(BLOCK_WIDTHS)}")
        return each_block

    def _when(self, place: str, name: str, when: Any) -> dict[str, tuple[Any, ...]]:
        place = f"{place}: when"
        if not isinstance(when, dict):
            problem = f'must name others and their values, such as {{ optimizer = "sgd" }}, got {when!r}'
            raise self.error(place, problem)
        if when and HYPERPARAMETERS[name] == "model":
            raise self.error(place, "is not for hyperparameters of the model, which all trials have")
        found = {}
        for other, values in when.items():
            self._known(other, list(HYPERPARAMETERS), f"{place} has no hyperparameter {other!r}")
            listed = values if isinstance(values, list) else [values]
            found[other] = tuple(self._value(place, other, value) for value in listed)
        return found

    def _choices(self, place: str, name: str, spec: dict[str, Any]) -> Choices:
        if len(spec) > 1:
            raise self.error(place, "takes choices, or low and high, not both")
        choices = spec["choices"]
        if not isinstance(choices, list) or not choices:
            raise self.error(place, "needs at least one choice")
        for choice in choices:
            if not isinstance(choice, Scalar):
                raise self.error(place, f"choices must be numbers, words or true/false, got {choice!r}")
        checked = tuple(self._value(place, name, choice) for choice in choices)
        if len(set(checked)) < len(checked):
            raise self.error(place, f"lists a choice twice: {choices}")
        return Choices(choices=checked)

    def _range(self, place: str, name: str, spec: dict[str, Any]) -> IntRange | FloatRange:
        if missing := {"low", "high"} - spec.keys():
            raise self.error(place, f"has no {missing.pop()!r}")
        low, high = (self._value(place, name, spec[end]) for end in ("low", "high"))
        if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
            raise self.error(place, "is not a number: list its values as { choices = [...] }")
        if low > high:
            raise self.error(place, f"has low {low} above high {high}")
        if spec.get("log") and (low <= 0 or "step" in spec):
            raise self.error(place, "with log = true needs low above 0 and no step")
        kind = IntRange if isinstance(low, int) else FloatRange
        try:
            return kind(**{**spec, "low": low, "high": high})
        except ConfigError as error:
            raise self.error(place, str(error)) from None

    def enqueued(
        self, entries: list[Any], space: Mapping[str, Hyperparameter], where: str = ""
    ) -> Iterator[dict[str, Any]]:
        for number, entry in enumerate(entries, start=1):
            place = where or f"[[enqueue]] {number}"
            if not isinstance(entry, dict):
                raise self.error(place, "must be a table")
            for name, value in entry.items():
                self._known(name, list(space), f"{place} has {name!r}, which is not in [space]")
                checked, spec = self._value(f"{place} {name}", name, value), space[name]
                values = checked if spec.each_block and isinstance(checked, list | tuple) else [checked]
                if not all(spec.contains(each) for each in values):
                    raise self.error(place, f"has {name} = {value!r}, which [space] does not contain")
            yield {name: self._value(place, name, value) for name, value in entry.items()}
