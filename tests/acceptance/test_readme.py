"""What the README tells people to type is what the program understands, and what it names is there."""

import re
import shlex

import pytest
from conftest import CHECKOUT

from kmnist_search.builtin import builtin_studies
from kmnist_search.cli import main
from kmnist_search.config import HYPERPARAMETERS

README = (CHECKOUT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.startswith("kmnist-search")]


def test_the_readme_shows_every_command() -> None:
    shown = {shlex.split(line, comments=True)[1] for line in LINES}
    assert shown >= set(main.commands)


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_readme_parses(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    with main.commands[name].make_context(name, arguments):
        pass


def test_the_readme_names_every_built_in_study_and_every_hyperparameter() -> None:
    for name in [*builtin_studies(), *HYPERPARAMETERS]:
        assert f"`{name}`" in README, name


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (CHECKOUT / link).exists()]
