"""What tests of several folders share: the real images, a tiny study, and the command as a user runs it."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import CHECKOUT, COMMAND, TINY_STUDY, Command, environment

if TYPE_CHECKING:
    from click.testing import Result

    from kmnist_search.host.process import Owner
    from tests.support.postgres import PostgresServer
    from tests.support.slurm import SlurmCluster

# As the command sets it, before torch is imported: a busy machine would bring the trainings in here to a standstill.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Triton reads this when it is imported, as torch does in many a place: without a GPU kernels run in its interpreter.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# A run works in its own process: more of them each import torch for seconds. `test_supervisor.py` is about those.
os.environ["KMNIST_SEARCH_WORKERS"] = "1"

# Where the tests run in the background, Ctrl-C is ignored, and commands they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: A minute or so each, the longest first; they wait for much of it.
LONG_FILES = (
    "test_database_away",
    "test_faults",
    "test_slurm",
    "test_hosts",
    "test_kubernetes_pods",
    "test_supervisor",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let fast tests come first, then the files that take longest, and last those that fill up what time is left.

    A file is one process's from its first test to its last, so that what its tests share is made once.
    """
    items.sort(key=lambda item: _turn(item.path))


def _turn(path: Path) -> tuple[int, int]:
    if "unit" in path.relative_to(CHECKOUT).parts:
        return 0, 0
    return (1, LONG_FILES.index(path.stem)) if path.stem in LONG_FILES else (2, 0)


@pytest.fixture
def tiny_study(tmp_path: Path) -> Path:
    """A study file of trainings that take a fraction of a second, without any download."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_STUDY)
    return path


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_study: Path) -> Callable[..., "Result"]:
    """Run a command in this process, in `tmp_path`, where there is a `tiny.toml`."""
    from click.testing import CliRunner

    from kmnist_search.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KMNIST_SEARCH_STORAGE", raising=False)
    monkeypatch.delenv("KMNIST_SEARCH_DATA", raising=False)
    return lambda *arguments, **options: CliRunner().invoke(main, [str(argument) for argument in arguments], **options)


@pytest.fixture
def storage_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'search.db'}"


@pytest.fixture(scope="session")
def postgres() -> Iterator["PostgresServer"]:
    """A server that the tests share; those that kill one start their own."""
    from tests.support.postgres import PostgresServer

    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def slurm() -> Iterator["SlurmCluster"]:
    """A cluster of this machine, where one can be started; nothing is left of it."""
    from tests.support.slurm import SlurmCluster, reason_for_none

    if reason := reason_for_none():
        pytest.skip(reason)
    cluster = SlurmCluster()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def _postgres_url(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Make a database on the server that the environment names, or else on the one that the tests share."""
    named = os.environ.get("KMNIST_SEARCH_TEST_POSTGRES")
    if named is None:
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.new_database
    numbers = itertools.count(1)

    def new_database() -> str:
        import psycopg
        from sqlalchemy import make_url

        url = make_url(named)
        name = f"kmnist_search_test_{os.getpid()}_{next(numbers)}"
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)

    return new_database


@pytest.fixture
def as_reader(postgres: "PostgresServer") -> Callable[[str], str]:
    """Let a role that may only read use a database; return its URL of it."""

    def allow(url: str) -> str:
        name = url.rpartition("/")[2]
        if not postgres.execute("SELECT 1 FROM pg_roles WHERE rolname = 'reader'"):
            postgres.execute("CREATE ROLE reader LOGIN")
        postgres.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", name)
        return url.replace("tester@", "reader@")

    return allow


@pytest.fixture(params=["sqlite", "postgres"])
def any_storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: what holds for one kind holds for the other."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'search.db'}"
    url: str = request.getfixturevalue("_postgres_url")()
    return url


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder of the real KMNIST, MNIST and Fashion-MNIST files, where there is one."""
    named = os.environ.get("KMNIST_SEARCH_TEST_DATA")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "data"
    if not (folder / "KMNIST" / "raw").is_dir():
        pytest.skip("no KMNIST files: set KMNIST_SEARCH_TEST_DATA to a folder that has KMNIST/raw")
    return folder


@pytest.fixture
def few_kernel_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets of a few hundred parameters do not need 128 programs, milliseconds each in the interpreter, for a norm."""
    from kmnist_search.engine.backends import HAS_TRITON

    if HAS_TRITON:
        from kmnist_search.engine import triton_program

        monkeypatch.setattr(triton_program, "NORM_SLOTS", 4)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Models of the size of the tests only wait for each other's threads, all the more on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every training of this process ask for more memory than there is at its first step."""
    import torch

    from kmnist_search.engine.training import Training

    monkeypatch.setattr(Training, "advance", lambda training: torch.empty(10**15))


@pytest.fixture
def dead_owner() -> "Owner":
    """The owner that a process would be which was killed a moment ago."""
    code = (
        "import dataclasses, json; from kmnist_search.host.process import Owner;"
        "print(json.dumps(dataclasses.asdict(Owner.this_process())), flush=True); import time; time.sleep(600)"
    )
    from kmnist_search.host.process import Owner

    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        owner = Owner(**json.loads(process.stdout.readline()))
        assert not owner.is_dead()
        process.send_signal(signal.SIGKILL)
    assert owner.is_dead()
    return owner


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Command]:
    """Start `kmnist-search` with the arguments given, in `tmp_path`."""
    return lambda *arguments: Command(arguments, tmp_path)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `kmnist-search` with the arguments given to its end, in `tmp_path`."""

    def run(*arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=seconds, env=environment()
        )

    return run


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved model that was trained on the digits for a second; it is only read."""
    import torch

    from kmnist_search.config import BatchConfig, DataConfig, OptimizerConfig, PatchMLPConfig, TrainConfig, TrialConfig
    from kmnist_search.data import search_data
    from kmnist_search.engine.training import Training
    from tests.support.models import save_model

    data = search_data.load(DataConfig(dataset="digits"), Path())
    config = TrialConfig(
        model=PatchMLPConfig(patch_size=7, dim=32, token_width=16, channel_width=64, num_blocks=1),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        batch=BatchConfig(batch_size=64),
        train=TrainConfig(epochs=8),
    )
    training = Training(config, data, seed=0, device=torch.device("cpu"))
    assert (list(training.epochs())[-1].val_accuracy or 0) > 0.9
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(
        folder,
        training.evaluated_model,
        dataset="digits",
        mean=data.mean,
        std=data.std,
        config_digest=config.digest,
        recipe_digest="0123456789ab",
        seed=0,
    )
    return folder
