"""What the README tells people to type is what the program understands, and what it names is there."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from conftest import CHECKOUT

from kmnist_search.builtin import builtin_studies
from kmnist_search.cli import main
from kmnist_search.config import HYPERPARAMETERS, DataConfig, TrainConfig
from kmnist_search.study_parser import load

README = (CHECKOUT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.startswith("kmnist-search")]


def _command(line: str) -> tuple[click.Command, list[str]]:
    """Return the command that a line of a shell calls, and its arguments."""
    arguments = shlex.split(line.partition(">")[0], comments=True)[1:]
    command: click.Command = main
    while isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    return command, arguments


def _commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
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


def test_the_study_file_of_the_readme_can_be_used_and_shows_every_key(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "my-study.toml"
    path.write_text(example)
    load(path)
    tables = tomllib.loads(example)
    for table, kind in (("data", DataConfig), ("train", TrainConfig)):
        assert tables[table].keys() == kind.model_fields.keys()


def test_the_readme_names_every_built_in_study_and_every_hyperparameter() -> None:
    for name in [*builtin_studies(), *HYPERPARAMETERS]:
        assert f"`{name}`" in README, name


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (CHECKOUT / link).exists()]
