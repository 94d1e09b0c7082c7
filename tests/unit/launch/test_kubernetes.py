"""Tests of launch/kubernetes.py and its parts: manifests that a cluster accepts, whatever values they contain."""

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import example, given, strategies as st

from kmnist_search.errors import ConfigError
from kmnist_search.launch.kubernetes import KubernetesJob
from kmnist_search.launch.kubernetes_names import literal
from kmnist_search.launch.kubernetes_notes import notes
from kmnist_search.launch.yaml_text import as_yaml
from tests.support.recorded import assert_recorded

Manifest = dict[str, Any]

OWN_STUDY = """\
# A study of somebody's own.
[data]
dataset = "digits"

[space]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
"""

PLAIN = KubernetesJob(
    study="kmnist", source="kmnist", is_builtin=True, trials=200, image="example.org/me/kmnist-search:0.1.0", workers=16
)
JOBS = {
    "plain": PLAIN,
    "claims": dataclasses.replace(
        PLAIN, data_claim="images", checkpoints_claim="checkpoints", secret="kmnist.db", retrains=True
    ),
    "cpu": dataclasses.replace(PLAIN, study="kmnist-cpu", source="kmnist-cpu", gpus=0, cpus="2", memory="4Gi"),
    "everything": KubernetesJob(
        study="größer",
        source=OWN_STUDY,
        is_builtin=False,
        changes=("train.epochs=3", "study.seed=7"),
        trials=40,
        image="localhost:5000/kmnist-search@sha256:" + "0123456789abcdef" * 4,
        workers=4,
        gpus=8,
        cpus="32",
        memory="128Gi",
        per_gpu=6,
        grace_seconds=300,
        namespace="vision-team",
        secret="kmnist-search",
        data_claim="images",
        checkpoints_claim="checkpoints",
        artifacts="s3://pictures/of/kmnist",
        postgres=True,
        dashboard=True,
    ),
}
VERSIONS = [version for version in kubernetes_validate.utils.all_versions() if int(version.split(".")[1]) >= 29]


@pytest.fixture(params=JOBS)
def job(request: pytest.FixtureRequest) -> KubernetesJob:
    return JOBS[request.param]


def _pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Yield what every pod of the manifests is made from: metadata and spec."""
    for manifest in manifests:
        if "template" in manifest.get("spec", {}):
            yield manifest["spec"]["template"]


def _containers(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


@pytest.mark.parametrize("name", JOBS)
def test_manifests_are_those_that_were_recorded(name: str) -> None:
    assert_recorded(f"kubernetes-{name}.yaml", as_yaml(JOBS[name].manifests()))


@pytest.mark.parametrize("name", JOBS)
def test_notes_are_those_that_were_recorded(name: str) -> None:
    assert_recorded(f"kubernetes-{name}.txt", "\n".join(notes(JOBS[name], is_applied=False)) + "\n")


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid_by_the_official_schemas(version: str, job: KubernetesJob) -> None:
    for manifest in yaml.safe_load_all(as_yaml(job.manifests())):
        kubernetes_validate.validate(manifest, version, strict=True)


def _misspell(manifest: Manifest) -> None:
    manifest["spec"]["backofLimitPerIndex"] = manifest["spec"].pop("backoffLimitPerIndex")


def _quote_a_number(manifest: Manifest) -> None:
    manifest["spec"]["completions"] = str(manifest["spec"]["completions"])


def _leave_out_the_pod(manifest: Manifest) -> None:
    del manifest["spec"]["template"]


def _put_a_number_among_the_arguments(manifest: Manifest) -> None:
    manifest["spec"]["template"]["spec"]["containers"][0]["args"].append(5)


def _misplace_the_rights(manifest: Manifest) -> None:
    manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"]["fsGroup"] = 1000


@pytest.mark.parametrize(
    "spoil",
    [
        _misspell,
        _quote_a_number,
        _leave_out_the_pod,
        _put_a_number_among_the_arguments,
        _misplace_the_rights,
    ],
)
def test_a_spoilt_manifest_is_not_valid(spoil: Callable[[Manifest], None]) -> None:
    manifest = copy.deepcopy(PLAIN.manifests()[-1])
    kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
    spoil(manifest)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_every_volume_is_mounted_and_every_mount_has_its_volume(job: KubernetesJob) -> None:
    for manifest in job.manifests():
        for pod in _pods([manifest]):
            claims = manifest["spec"].get("volumeClaimTemplates", [])
            volumes = [volume["name"] for volume in pod["spec"]["volumes"]]
            volumes += [claim["metadata"]["name"] for claim in claims]
            mounted = {mount["name"] for container in _containers(pod) for mount in container["volumeMounts"]}
            assert sorted(volumes) == sorted(mounted)


def test_every_selector_finds_its_pods_and_no_others(job: KubernetesJob) -> None:
    manifests = job.manifests()
    labels = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["metadata"]["labels"] for pod in _pods(manifests)
    }
    for manifest in manifests:
        selector = manifest.get("spec", {}).get("selector")
        if selector is not None:
            wanted = selector.get("matchLabels", selector)
            found = [component for component, its in labels.items() if wanted.items() <= its.items()]
            assert found == [wanted["app.kubernetes.io/component"]]


def test_no_pod_is_root_or_may_write_anywhere_but_into_its_volumes(job: KubernetesJob) -> None:
    for pod in _pods(job.manifests()):
        rights = pod["spec"]["securityContext"]
        assert rights["runAsNonRoot"]
        assert rights["runAsUser"] > 0
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in _containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_database_is_named_by_a_secret_alone(job: KubernetesJob) -> None:
    for pod in _pods(job.manifests()):
        for container in _containers(pod):
            for variable in container["env"]:
                if "PASSWORD" in variable["name"]:
                    assert variable["valueFrom"]["secretKeyRef"] == {"name": job.secret, "key": "password"}
                if variable["name"] == "KMNIST_SEARCH_STORAGE" and not job.postgres:
                    assert variable["valueFrom"]["secretKeyRef"] == {"name": job.secret, "key": "storage"}


def test_images_from_a_claim_are_only_read() -> None:
    (pod,) = _pods(JOBS["claims"].manifests())
    assert [volume for volume in pod["spec"]["volumes"] if volume["name"] == "data"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "images", "readOnly": True}}
    ]
    for container in _containers(pod):
        assert {"name": "data", "mountPath": "/srv/data", "readOnly": True} in container["volumeMounts"]


def test_the_dashboard_asks_for_the_password_of_its_own_secret() -> None:
    pod = next(pod for pod in _pods(JOBS["everything"].manifests()) if "secret" in pod["spec"]["volumes"][-1])
    assert pod["spec"]["volumes"][-1] == {"name": "password", "secret": {"secretName": "kmnist-search-dashboard"}}
    (container,) = _containers(pod)
    assert {"name": "password", "mountPath": "/srv/dashboard", "readOnly": True} in container["volumeMounts"]
    assert "--password-file=/srv/dashboard/password" in container["args"]
    assert "--i-know-it-is-open" not in container["args"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"


def test_services_stay_as_they_are_when_another_study_comes() -> None:
    one = JOBS["everything"]
    other = dataclasses.replace(one, study="other", trials=500, workers=64, gpus=1, cpus="4", grace_seconds=60)
    assert one.manifests()[:4] == other.manifests()[:4]
    assert [manifest["kind"] for manifest in one.manifests()[:4]] == ["Service", "StatefulSet", "Service", "Deployment"]
    assert one.manifests()[5] != other.manifests()[5]


def test_the_same_command_names_the_same_job_and_another_one_another() -> None:
    others = [
        dataclasses.replace(PLAIN, trials=300),
        dataclasses.replace(PLAIN, workers=17),
        dataclasses.replace(PLAIN, image="kmnist-search:0.2.0"),
        dataclasses.replace(PLAIN, study="KMNIST"),  # which ends up alike
    ]
    assert dataclasses.replace(PLAIN, trials=PLAIN.trials).name == PLAIN.name
    assert len({PLAIN.name, *(other.name for other in others)}) == 1 + len(others)
    changed_file = dataclasses.replace(JOBS["everything"], source=OWN_STUDY.replace("1e-2", "2e-2"))
    assert changed_file.name != JOBS["everything"].name


@pytest.mark.parametrize("study", ["a" * 100, "größer", "Ü", "_", "ひらがな", "A_B.c", "1e3", "x" * 42 + "._-"])
def test_a_job_has_a_name_that_its_pods_can_have(study: str) -> None:
    job = dataclasses.replace(PLAIN, study=study, workers=10_000)
    host = f"{job.name}-{job.workers - 1}"
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", host)
    assert len(host) <= 63
    assert job.manifests()[-1]["metadata"]["annotations"] == {"kmnist-search/study": study}


#: What the Go library that Kubernetes reads YAML with takes for a number, a boolean or nothing, if it is not quoted.
TRAPS = ["1e3", "1E+5", "0o17", "0x1f", "0b11", "1_000", "+5", ".5", "-.5e3", "y", "N", "yes", "Off", "true", "null"]
TRAPS += [
    "~",
    "",
    "12:30:45",
    "2026-11-21",
    ".inf",
    ".NaN",
    "=",
    "<<",
    "- a",
    "a: b",
    "a #b",
    "*a",
    "&a",
    "!a",
    "%a",
    "@",
]


@pytest.mark.parametrize("word", TRAPS)
def test_words_that_look_like_something_else_are_quoted(word: str) -> None:
    assert as_yaml([{"key": word}]) in (f"---\nkey: '{word}'\n", f'---\nkey: "{word}"\n')


def test_numbers_are_not_quoted() -> None:
    assert as_yaml([{"one": 1, "minus": -5, "yes": True}]) == "---\none: 1\nminus: -5\n'yes': true\n"


@example(text="\x85")
@example(text="a\n\u2028\nb")
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_way_through_yaml(text: str) -> None:
    assert list(yaml.safe_load_all(as_yaml([{text: text}, {"list": [text]}]))) == [{text: text}, {"list": [text]}]


def _expanded(text: str, variables: dict[str, str]) -> str:
    """Do to an argument what Kubernetes does: $(NAME) is a variable's value if there is one, and $$ is a dollar."""
    found = re.compile(r"\$(?:\$|\(([^)]*)\))")
    return found.sub(lambda match: "$" if match[1] is None else variables.get(match[1], match[0]), text)


@example(text="\x85")
@example(text="a\n\u2028\nb")
@given(text=st.text(alphabet="$()AB "))
def test_kubernetes_puts_no_variable_into_an_argument(text: str) -> None:
    assert _expanded("$(A)", {"A": "secret"}) == "secret"
    assert _expanded(literal(text), {"A": "secret", "B": "secret", "AB": "secret"}) == text


def test_what_a_user_typed_reaches_the_command_unchanged() -> None:
    change = "study.pruner=$(KMNIST_SEARCH_STORAGE) ' \" \\ ---\n# {{ .Values }}"
    job = dataclasses.replace(JOBS["everything"], changes=(change,))
    *_, manifest = yaml.safe_load_all(as_yaml(job.manifests()))
    arguments = manifest["spec"]["template"]["spec"]["initContainers"][0]["args"]
    seen = [_expanded(argument, {"KMNIST_SEARCH_STORAGE": "secret"}) for argument in arguments]
    assert seen == [
        *("submit", "queue", "/srv/study/study.toml", "--trials=40", "--name=größer", f"--set={change}"),
        "--database-timeout=10m",
    ]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image", "", "--image '': is not an image"),
        ("image", "Me/Image", "--image 'Me/Image': is not an image"),
        ("image", "image:tag\nx", "is not an image"),
        ("image", "--help", "is not an image"),
        ("cpus", "four", "--cpus 'four': is not an amount"),
        ("cpus", "0", "--cpus '0': is not an amount"),
        ("cpus", "-1", "is not an amount"),
        ("memory", "16GB", "--memory '16GB': is not an amount"),
        ("memory", "٤Gi", "is not an amount"),
        ("secret", "My_Secret", "--secret 'My_Secret': Kubernetes allows names"),
        ("namespace", "team.vision", "--namespace 'team.vision': Kubernetes allows at most 63"),
        ("namespace", "", "--namespace ''"),
        ("data_claim", "-images", "--data-claim '-images': Kubernetes allows names"),
        ("checkpoints_claim", "a..b", "--checkpoints-claim 'a..b': Kubernetes allows names"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_by_its_option(field: str, value: str, message: str) -> None:
    changed: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError, match=re.escape(message)):
        dataclasses.replace(PLAIN, **changed)


def test_a_retraining_without_a_volume_for_its_result_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--retrain: model and report need a volume .* with --checkpoints-claim"):
        dataclasses.replace(PLAIN, retrains=True)


def test_several_trials_on_no_gpu_are_refused() -> None:
    with pytest.raises(ConfigError, match="--per-gpu 4: with --gpus 0 the pods have no GPU"):
        dataclasses.replace(PLAIN, per_gpu=4, gpus=0)


@pytest.mark.parametrize(
    "image",
    ["kmnist-search", "me/kmnist-search:1.0_x", "localhost:5000/a/b__c/d-e:tag", "ghcr.io/a.b/c@sha256:" + "0" * 64],
)
def test_images_are_taken_as_they_are_written_everywhere(image: str) -> None:
    assert dataclasses.replace(PLAIN, image=image).image == image
