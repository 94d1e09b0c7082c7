"""The files in docker/: valid by the schema of Compose, nothing for hadolint to complain of, all there for a build."""

import copy
import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kmnist_search.launch.kubernetes import KubernetesJob
from tests.support.command import CHECKOUT

DOCKER = CHECKOUT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
HADOLINT = Path(sys.executable).with_name("hadolint")
COMPOSE_FILES = ("compose.yaml", "compose.cpu.yaml")


class _Loader(yaml.SafeLoader):
    """Reads what Compose adds to YAML: !reset, which takes away what another file said."""


def _reset(loader: yaml.SafeLoader, node: yaml.Node) -> list[Any]:
    assert isinstance(node, yaml.SequenceNode)
    return loader.construct_sequence(node)


_Loader.add_constructor("!reset", _reset)


def _compose(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((DOCKER / name).read_text(), Loader=_Loader)
    return loaded


def _validate(compose: dict[str, Any]) -> None:
    schema = files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    jsonschema.validate(compose, json.loads(schema))


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_files_are_valid_by_the_schema(name: str) -> None:
    _validate(_compose(name))


def _misspell(compose: dict[str, Any]) -> None:
    compose["services"]["worker"]["stop_graceperiod"] = "2m"


def _reserve_a_word(compose: dict[str, Any]) -> None:
    compose["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"] = "all"


def _leave_out_the_capabilities(compose: dict[str, Any]) -> None:
    del compose["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"]


@pytest.mark.parametrize("spoil", [_misspell, _reserve_a_word, _leave_out_the_capabilities])
def test_a_spoilt_compose_file_is_not_valid(spoil: Callable[[dict[str, Any]], None]) -> None:
    compose = copy.deepcopy(_compose("compose.yaml"))
    spoil(compose)
    with pytest.raises(jsonschema.ValidationError):
        _validate(compose)


def test_every_service_runs_without_root_on_a_file_system_that_is_read_only() -> None:
    for name, service in _compose("compose.yaml")["services"].items():
        assert service["user"].partition(":")[0] not in ("", "0", "root"), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_only_this_box_reaches_database_and_dashboard() -> None:
    services = _compose("compose.yaml")["services"]
    assert services["dashboard"]["ports"] == ["127.0.0.1:${DASHBOARD_PORT:-8080}:8080"]
    command = services["dashboard"]["command"]
    (secret,) = services["dashboard"]["secrets"]
    assert f"--password-file={secret['target']}" in command
    assert "--i-know-it-is-open" not in command
    assert services["postgres"]["ports"] == ["${POSTGRES_ADDRESS:-127.0.0.1}:${POSTGRES_PORT:-5432}:5432"]


def test_compose_and_kubernetes_use_the_same_postgres() -> None:
    postgres = _compose("compose.yaml")["services"]["postgres"]
    job = KubernetesJob(
        study="kmnist", source="kmnist", is_builtin=True, trials=1, image="kmnist-search", workers=1, postgres=True
    )
    pod = job.manifests()[1]["spec"]["template"]["spec"]
    (container,), rights = pod["containers"], pod["securityContext"]
    assert postgres["image"] == container["image"]
    assert postgres["user"] == f"{rights['runAsUser']}:{rights['runAsGroup']}"
    assert postgres["command"] == container["args"]


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    linted = subprocess.run([HADOLINT, "-"], input=DOCKERFILE, capture_output=True, text=True, timeout=240)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_hadolint_would_find_something() -> None:
    spoilt = DOCKERFILE.replace("# hadolint ignore=DL3008\n", "")
    linted = subprocess.run([HADOLINT, "-"], input=spoilt, capture_output=True, text=True, timeout=240)
    assert linted.returncode == 1
    assert "DL3008" in linted.stdout


def test_the_image_is_built_from_all_files_that_the_package_is_built_from() -> None:
    rules = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = ["pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]]
    needed += [*wheel["packages"], *wheel["force-include"]]
    for path in needed:
        assert (CHECKOUT / path).exists()
        places = [path, *map(str, Path(path).parents)]  # a folder is kept with all that is in it
        assert any(fnmatch.fnmatch(each, rule) for each in places for rule in kept), f"{path} is left out"
    for secret in ("docker/.env", "docker/dashboard_password"):
        assert not any(fnmatch.fnmatch(secret, rule) for rule in kept)


def test_the_image_has_the_version_of_the_package() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert re.findall(r"^ARG VERSION=(.+)$", DOCKERFILE, re.MULTILINE) == [project["version"]]


def test_a_file_with_a_password_is_not_for_git() -> None:
    ignored = (CHECKOUT / ".gitignore").read_text().splitlines()
    assert {"/docker/.env", "/docker/dashboard_password"} <= set(ignored)
