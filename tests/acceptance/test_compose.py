"""The services of docker/compose.yaml: valid by their schema, and run with their very commands to the end of a search.

There is no engine here, so they run as processes, each in the view of the machine that the file gives its container.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmnist_search.database.storage import open_storage
from kmnist_search.study.opening import find_study
from kmnist_search.study.status import status_of
from tests.support.command import CHECKOUT, TINY_STUDY
from tests.support.containers import (
    DOCKERFILE,
    Container,
    Containers,
    Mount,
    Spec,
    containers,
    image_environment,
    wait_until,
)
from tests.support.exact import Look, assert_exact

Service = dict[str, Any]

pytestmark = pytest.mark.slow

DOCKER = CHECKOUT / "docker"
PASSWORD = "s3cret/&%41@:"
DASHBOARD_PASSWORD = "another s3cret"
#: Asks for the studies with the password in the variable that follows, and prints the status.
ASK = """
import base64, sys, urllib.error, urllib.request
credentials = base64.b64encode(f"kmnist:{sys.argv[1]}".encode()).decode()
request = urllib.request.Request("http://127.0.0.1:8080/api/studies", headers={"Authorization": f"Basic {credentials}"})
try:
    print(urllib.request.urlopen(request, timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def _interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Put variables into a text as Compose does: ${NAME}, ${NAME:-default}, ${NAME:?message}, and $$ for a dollar."""
    innermost = re.compile(r"\$\{(\w+)(?::([-?])([^${}]*))?\}")

    def value(match: re.Match[str]) -> str:
        name, kind, otherwise = match.groups()
        if found := variables.get(name):
            return found.replace("$", "\0")
        if kind == "?":
            raise ValueError(f"required variable {name} is missing a value: {otherwise}")
        return otherwise or ""

    while (after := innermost.sub(value, text)) != text:
        text = after
    assert "$" not in text.replace("$$", ""), f"a variable in {text!r} was not understood"
    return text.replace("$$", "$").replace("\0", "$")


def _settings(text: str) -> dict[str, str]:
    """Read the lines of an .env file."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def _settings_of_the_test() -> dict[str, str]:
    """Return what a user makes of .env.example who has a study of their own."""
    text = (DOCKER / ".env.example").read_text()
    for name, value in (
        ("POSTGRES_PASSWORD", PASSWORD),
        ("STUDY", "tiny"),
        ("TRIALS", "12"),
        ("STUDY_FILE", "studies/tiny.toml"),
        ("STUDIES", "studies"),
    ):
        text, found = re.subn(rf"^#?{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert found == 1, f"{name} is not offered by .env.example"
    return _settings(text)


def _compose(variables: Mapping[str, str]) -> dict[str, Any]:
    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return _interpolated(value, variables)
        if isinstance(value, list):
            return [filled(each) for each in value]
        return {key: filled(each) for key, each in value.items()} if isinstance(value, dict) else value

    compose: dict[str, Any] = filled(yaml.safe_load((DOCKER / "compose.yaml").read_text()))
    return compose


def _environment(service: Service) -> dict[str, str]:
    unset = [name for name, value in service["environment"].items() if value is None]
    assert unset in ([], ["CUDA_VISIBLE_DEVICES"])
    given = {name: value for name, value in service["environment"].items() if value is not None}
    return {**image_environment(), **given}


def _mounts(service: Service, folder: Path) -> list[Mount]:
    found = []
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        path = folder / source
        if not path.exists():
            path.mkdir()
            path.chmod(0o777)  # the engine gives a new volume to whom the image's folder belongs to
        found.append(Mount(source=path, target=target, read_only=mode == ["ro"]))
    return found


class Services:
    """The services of the file, started as containers."""

    def __init__(self, started: Containers, folder: Path) -> None:
        self.started, self.folder = started, folder
        compose = _compose(_settings_of_the_test())
        self.services: dict[str, Service] = compose["services"]
        self.secrets: dict[str, Any] = compose["secrets"]

    def start(self, name: str, *, host: str | None = None, cores: Sequence[int] = ()) -> Container:
        service = self.services[name]
        assert service["tmpfs"] == ["/tmp:exec,mode=1777"]
        user_id, _, group_id = service["user"].partition(":")
        assert user_id == group_id
        spec = Spec(
            host=host or name,
            command=["kmnist-search", *service["command"]],  # the image's entry point
            environment=_environment(service),
            mounts=[*_mounts(service, self.folder), *self._secrets(service)],
            user_id=int(user_id),
            read_only=service["read_only"],
            cores=cores,
        )
        return self.started.start(spec)

    def _secrets(self, service: Service) -> list[Mount]:
        """Return the secrets of a service: of a file, Docker mounts just that."""
        return [
            Mount(source=self.folder / self.secrets[each["source"]]["file"], target=each["target"], read_only=True)
            for each in service.get("secrets", [])
        ]

    def start_postgres(self) -> str:
        """Start the database and return its URL as it is reached from here."""
        service = self.services["postgres"]
        variables = service["environment"]
        _, url = self.started.start_postgres(
            host="postgres",
            user=variables["POSTGRES_USER"],
            password=variables["POSTGRES_PASSWORD"],
            database=variables["POSTGRES_DB"],
            arguments=service["command"],
        )
        return url

    def health(self, name: str, container: Container) -> int:
        test = self.services[name]["healthcheck"]["test"]
        assert test[0] == "CMD"
        return container.inside(*test[1:]).returncode


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "tiny.toml").write_text(TINY_STUDY)
    password = tmp_path / "dashboard_password"
    password.touch(mode=0o600)
    password.write_text(f"{DASHBOARD_PASSWORD}\n")
    os.chown(password, 1000, 1000)
    with containers(tmp_path, "postgres") as started:
        yield Services(started, tmp_path)


def test_without_a_password_nothing_is_started() -> None:
    with pytest.raises(ValueError, match="required variable POSTGRES_PASSWORD is missing a value: set it in"):
        _compose(_settings((DOCKER / ".env.example").read_text()))


def test_the_services_run_a_search_to_its_exact_end(services: Services) -> None:
    names = list(services.services)
    assert names == ["postgres", "search", "worker", "dashboard"]
    core, other_core = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    worker = services.start("worker", host="worker-1", cores=[core])  # before there is any database: it waits
    wait_until(lambda: "Waiting: " in worker.output, worker)
    url = services.start_postgres()
    search = services.start("search")
    other = services.start("worker", host="worker-2", cores=[other_core])
    assert search.ended() == 0, search.output
    assert "Done: 12 of 12 trials are finished." in search.output
    dashboard = services.start("dashboard")
    study = find_study(open_storage(url, create=False), "tiny")
    wait_until(lambda: {each.host for each in status_of(study).workers} == {"worker-1", "worker-2"}, worker, other)
    wait_until(lambda: services.health("dashboard", dashboard) == 0, dashboard)
    for password, status in ((DASHBOARD_PASSWORD, "200\n"), (PASSWORD, "401\n")):
        assert dashboard.inside("python", "-c", ASK, password).stdout == status
    assert worker.inside("id", "--user").stdout == "1000\n"
    assert (
        worker.inside("touch", "/srv/somewhere").returncode == worker.inside("touch", "/etc/somewhere").returncode == 1
    )
    is_alive = json.loads(_healthcheck_of_the_image())
    assert worker.inside(*is_alive).returncode == 0
    assert search.exit_code == 0
    assert dashboard.inside(*is_alive).returncode == 1  # no worker is on its host
    for container in (worker, other, dashboard):
        container.stop()
    assert {worker.ended(), other.ended()} <= {0, 130}, worker.output + other.output
    assert_exact(Look(url), [worker, other], trials=12, epochs=4)
    for container in (worker, other, search, dashboard):
        assert PASSWORD not in container.output
        assert DASHBOARD_PASSWORD not in container.output
    assert (services.folder / "checkpoints").is_dir()


def _healthcheck_of_the_image() -> str:
    found = re.search(r"^HEALTHCHECK .* CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    return found[1]
