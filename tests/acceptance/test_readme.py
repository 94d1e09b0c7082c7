"""README and docs: every command parses, the quick ones run, every link leads somewhere, nothing is left out."""

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kmnist_search.cli.main import main
from kmnist_search.config import HYPERPARAMETERS, DataConfig, TrainConfig
from kmnist_search.study_file.builtin import builtin_studies
from kmnist_search.study_file.parser import load
from tests.support.command import CHECKOUT

README = CHECKOUT / "README.md"
DOCS = CHECKOUT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md")), CHECKOUT / "CONTRIBUTING.md", CHECKOUT / "docker" / "README.md"]
STUDIES_PAGE = DOCS / "studies.md"
#: Where the source is on the web, which pages of the site link to; the rest of such a link is a path in the checkout.
SOURCE = re.compile(r"https://github\.com/kmnist-search/kmnist-search/(?:blob|tree)/main/([^)\s#>]+)")


def _lines(page: Path) -> list[str]:
    """Return the commands of this package that a page tells people to type, continued lines put together."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("kmnist-search ")]


def _shown(page: Path) -> list[str]:
    """Return the commands that a page shows in running text or before their output."""
    text = page.read_text()
    in_text = re.findall(r"`(kmnist-search [a-z][^`]*)`", text)
    with_output = re.findall(r"^\$ (kmnist-search .*)$", text, re.MULTILINE)
    return [" ".join(line.split()) for line in (*in_text, *with_output)]


LINES = {page: _lines(page) for page in PAGES}
ALL_LINES = sorted({line for lines in LINES.values() for line in lines})
ALL_SHOWN = sorted({line for page in PAGES for line in _shown(page)})


def _command(line: str) -> tuple[click.Command, list[str]]:
    """Return the command that a line of a shell calls, and its arguments."""
    arguments = shlex.split(line.partition(">")[0], comments=True)[1:]
    command: click.Command = main
    while isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    return command, arguments


def _commands(group: click.Group) -> Iterator[click.Command]:
    """Yield what can be typed: commands, and groups that do something by themselves."""
    for command in group.commands.values():
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield command
        if isinstance(command, click.Group):
            yield from _commands(command)


def test_readme_and_docs_show_every_command() -> None:
    shown = [_command(line)[0] for line in ALL_LINES]
    assert [command.name for command in _commands(main) if command not in shown] == []


@pytest.mark.parametrize("line", ALL_LINES)
def test_every_command_to_type_parses(line: str) -> None:
    command, arguments = _command(line)
    assert command is not main
    with command.make_context(command.name, arguments) as context:
        assert not context.args


@pytest.mark.parametrize("line", ALL_SHOWN)
def test_every_command_in_running_text_exists_with_its_options(line: str) -> None:
    """Placeholders such as NAME may stand for arguments, so only the command and the names of options are checked."""
    command, arguments = _command(line)
    assert command is not main or arguments == ["--version"]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert not [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in options]


@pytest.mark.slow
def test_the_quickstart_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer trials, epochs and models, so that it takes seconds."""
    shorter = {
        "kmnist-search run quickstart --trials 20": "--trials 3 --epochs 2",
        "kmnist-search run quickstart --trials 40": "--trials 4 --epochs 2",
        "kmnist-search best quickstart --retrain": "--top 1 --models 1 --epochs 2",
    }
    lines = [line for line in LINES[DOCS / "quickstart.md"] if not line.startswith("kmnist-search run kmnist")]
    assert set(shorter) <= set(lines)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        _type(f"{line} {shorter.get(line, '')}")
    assert (tmp_path / "quickstart-report.html").exists()
    assert (tmp_path / "quickstart-best" / "model" / "model.onnx").exists()
    assert (tmp_path / "digits.onnx").exists()


@pytest.mark.slow
def test_the_commands_of_the_page_on_watching_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Except those that do not end, or need another server; the study is made first, under the page's name."""
    monkeypatch.chdir(tmp_path)
    _type("kmnist-search run quickstart --name kmnist-cpu --trials 1 --epochs 1")
    for line in LINES[DOCS / "watching.md"]:
        if not line.startswith(("kmnist-search dashboard", "kmnist-search studies copy")) and "--watch" not in line:
            _type(line.replace("delete second", "delete second --yes"))
    assert (tmp_path / "first-try.jsonl").exists()


def _type(line: str) -> None:
    """Run a line of a page in this process, in the current folder."""
    line, _, target = line.partition(">")
    ran = CliRunner().invoke(main, shlex.split(line, comments=True)[1:])
    assert ran.exit_code == 0, f"{line}\n{ran.output}"
    if target:
        Path(shlex.split(target, comments=True)[0]).write_text(ran.output)


def test_the_python_of_readme_and_docs_compiles_and_names_what_is_there() -> None:
    for page in PAGES:
        for example in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            compile(example, str(page), "exec")
    named = re.findall(r"^::: (kmnist_search\.\S+)$", (DOCS / "python.md").read_text(), re.MULTILINE)
    assert named
    for name in named:
        module, _, attribute = name.rpartition(".")
        __import__(module)
        assert hasattr(sys.modules[module], attribute), name


def test_the_study_files_of_the_docs_can_be_used_and_the_first_shows_every_key(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", STUDIES_PAGE.read_text(), re.DOTALL)
    for example in examples:
        path = tmp_path / "my-study.toml"
        path.write_text(example)
        load(path)
    tables = tomllib.loads(examples[0])
    for table, kind in (("data", DataConfig), ("train", TrainConfig)):
        assert tables[table].keys() == kind.model_fields.keys()


def test_the_docs_name_every_built_in_study_and_every_hyperparameter() -> None:
    text = STUDIES_PAGE.read_text() + (DOCS / "references.md").read_text()
    for name in [*builtin_studies(), *HYPERPARAMETERS]:
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text)
    assert not [link for link in links if not (page.parent / link).exists()]
    assert not [path for path in SOURCE.findall(text) if not (CHECKOUT / path).exists()]


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 190


def test_the_page_on_the_code_has_every_package_and_names_files_that_exist() -> None:
    text = (DOCS / "code.md").read_text()
    package = CHECKOUT / "kmnist_search"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert rooms == set(re.findall(r"── (\w+)/ ", text))
    named = re.findall(r"`(\w+/\w+\.py)`", text)
    assert named
    assert not [path for path in named if not (package / path).exists()]
