"""The help texts of all commands, as a terminal of 80 columns shows them."""

import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from kmnist_search.cli.main import main
from kmnist_search.cli.options import TIME

COLUMNS = 80


def _commands(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _commands(inner, (*path, name))


def _command(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


def _named(path: tuple[str, ...]) -> str:
    return " ".join(path) or "kmnist-search"


every_command = pytest.mark.parametrize("path", list(_commands()), ids=_named)


@every_command
def test_help_fits_a_terminal_of_80_columns_and_cuts_no_description(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*path, "--help"], env={"COLUMNS": str(COLUMNS)})
    assert shown.exit_code == 0
    usage, *lines = shown.output.splitlines()
    assert usage.startswith("Usage: ")
    for line in lines:
        assert len(line) <= COLUMNS
        assert not line.endswith("..."), line


@every_command
def test_help_ends_with_an_example_of_the_very_command(path: tuple[str, ...]) -> None:
    epilog = _command(path).epilog
    assert epilog is not None
    assert epilog.startswith(" ".join(("Example: kmnist-search", *path)))


@every_command
def test_every_option_says_what_it_does_and_where_it_may_come_from(path: tuple[str, ...]) -> None:
    for param in _command(path).params:
        if isinstance(param, click.Option):
            assert param.help, param.name
            assert param.show_envvar or not param.envvar, param.name


@every_command
def test_every_option_that_takes_a_time_takes_it_in_the_same_way(path: tuple[str, ...]) -> None:
    for param in _command(path).params:
        if re.search("time|period|seconds", str(param.name)) and (path, param.name) != (("submit", "slurm"), "time"):
            assert param.type is TIME, param.name
