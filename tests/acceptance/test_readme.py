"""What the README tells people to type is what the program understands, and what it names is there."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kmnist_search.cli.main import main
from kmnist_search.config import HYPERPARAMETERS, DataConfig, TrainConfig
from kmnist_search.study_file.builtin import builtin_studies
from kmnist_search.study_file.parser import load
from tests.support.command import CHECKOUT

README = (CHECKOUT / "README.md").read_text()
PAGES = (CHECKOUT / "README.md", CHECKOUT / "docker" / "README.md")


def _lines(page: Path) -> list[str]:
    """Return the commands of this package that a page tells people to type, continued lines put together."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("kmnist-search ")]


LINES = [line for page in PAGES for line in _lines(page)]


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


def test_the_readme_shows_every_command() -> None:
    shown = [_command(line)[0] for line in LINES]
    assert [command.name for command in _commands(main) if command not in shown] == []


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_readme_parses(line: str) -> None:
    command, arguments = _command(line)
    assert command is not main
    with command.make_context(command.name, arguments) as context:
        assert not context.args


def test_the_study_files_of_the_readme_can_be_used_and_the_first_shows_every_key(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    for example in examples:
        path = tmp_path / "my-study.toml"
        path.write_text(example)
        load(path)
    tables = tomllib.loads(examples[0])
    for table, kind in (("data", DataConfig), ("train", TrainConfig)):
        assert tables[table].keys() == kind.model_fields.keys()


def test_the_readme_names_every_built_in_study_and_every_hyperparameter() -> None:
    for name in [*builtin_studies(), *HYPERPARAMETERS]:
        assert f"`{name}`" in README, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
    assert links
    assert not [link for link in links if not (page.parent / link).exists()]
