"""Artifacts in a bucket of S3, spoken to over HTTP. The server is moto's, which is too heavy for the test extra."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound

from kmnist_search.database.storage import open_storage
from kmnist_search.study.artifacts import open_artifact_store, remove_all
from kmnist_search.study.opening import find_study

pytestmark = pytest.mark.slow

boto3 = pytest.importorskip("boto3", reason="no boto3: pip install boto3 'moto[s3,server]' to test buckets")
server = pytest.importorskip("moto.server", reason="no moto: pip install 'moto[s3,server]' to test buckets")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of S3 that has an empty bucket "pictures", as have all whom the environment tells where S3 is."""
    serving = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    serving.start()
    host, port = serving.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="pictures")
    yield client
    serving.stop()


def keys(client: Any) -> set[str]:
    return {each["Key"] for each in client.list_objects_v2(Bucket="pictures").get("Contents", [])}


def test_what_is_written_under_a_prefix_is_read_and_removed_there(bucket: Any, storage_url: str) -> None:
    storage = open_storage(storage_url, create=True)
    store = open_artifact_store("s3://pictures/of/kmnist/", storage.url)
    store.write("a-1", BytesIO(b"picture"))
    assert keys(bucket) == {"of/kmnist/a-1"}
    assert store.open_reader("a-1").read() == b"picture"
    with pytest.raises(ArtifactNotFound):
        open_artifact_store("s3://pictures", storage.url).open_reader("a-1")
    assert remove_all(store, ["a-1", "a-2"]) == 1
    assert keys(bucket) == set()


@pytest.mark.usefixtures("one_thread")
def test_a_search_puts_its_pictures_into_a_bucket_and_deleting_the_study_removes_them(
    bucket: Any, invoke: Callable[..., Result], storage_url: str, tmp_path: Path
) -> None:
    where = ("--storage", storage_url, "--artifacts", "s3://pictures/mine")
    result = invoke("run", "tiny.toml", "--trials", "2", "--set", "study.pruner=none", *where)
    assert result.exit_code == 0, result.output
    study = find_study(open_storage(storage_url, create=False), "tiny")
    metas = [meta for trial in study.optuna.trials for meta in get_all_artifact_meta(trial, storage=study.storage.rdb)]
    assert len(metas) == 8
    assert keys(bucket) == {f"mine/{meta.artifact_id}" for meta in metas}
    assert not (tmp_path / "search.artifacts").exists()
    assert invoke("studies", "delete", "tiny", "--yes", *where).exit_code == 0
    assert keys(bucket) == set()


@pytest.mark.usefixtures("one_thread")
def test_a_bucket_that_is_not_there_is_told_and_fails_no_trial(
    bucket: Any, invoke: Callable[..., Result], storage_url: str
) -> None:
    result = invoke("run", "tiny.toml", "--trials", "1", "--storage", storage_url, "--artifacts", "s3://no-such-bucket")
    assert result.exit_code == 0, result.output
    assert "the dashboard will lack some of what it shows, the search continues: " in result.output
    assert "NoSuchBucket" in result.output
    assert "1 of 1 trials are finished" in result.output
