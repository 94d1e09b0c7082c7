"""What the README tells people to type is what the program understands, and what it names is there."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from conftest import CHECKOUT

from kmnist_search.builtin import builtin_studies
from kmnist_search.cli import main
from kmnist_search.config import HYPERPARAMETERS, DataConfig, TrainConfig
from kmnist_search.study_parser import load

README = (CHECKOUT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.startswith("kmnist-search")]


def test_the_readme_shows_every_command() -> None:
    shown = {shlex.split(line, comments=True)[1] for line in LINES}
    assert shown >= set(main.commands)


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_readme_parses(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    with main.commands[name].make_context(name, arguments) as context:
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
