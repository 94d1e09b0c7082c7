"""The services that outlive a job on Kubernetes: a Postgres server and the dashboard.

They depend on no study and no number of workers, so another submission leaves them unchanged and restarts neither.
"""

from kmnist_search.launch.kubernetes_parts import (
    APP,
    CHECKPOINTS,
    DASHBOARD,
    PASSWORD_KEY,
    POSTGRES,
    Manifest,
    cache_environment,
    container_rights,
    database_environment,
    from_secret,
    labels,
    metadata,
    mount,
    pod_basis,
    temporary,
)

POSTGRES_IMAGE = "postgres:17"
POSTGRES_PORT = 5432
DASHBOARD_PORT = 8080
#: Folder of the file with the dashboard's password; it comes from a secret with the dashboard's name.
DASHBOARD_SECRET = "/srv/dashboard"
#: User id of "postgres" in the Debian image.
POSTGRES_USER_ID = 999
#: 200 workers had at most 38 connections open (tests/benchmarks/LOG.md); an idle one takes some 2 MB.
MAX_CONNECTIONS = 500
#: 1,000 trials with their curves take some 30 MB.
POSTGRES_DISK = "10Gi"


def postgres(namespace: str | None, secret: str) -> list[Manifest]:
    """Return a Postgres server with its own disk, and its service."""
    labelled = labels("postgres")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(POSTGRES, namespace, labelled),
        "spec": {
            "clusterIP": "None",
            "selector": labelled,
            "ports": [{"name": "postgres", "port": POSTGRES_PORT}],
        },
    }
    server = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(POSTGRES, namespace, labelled),
        "spec": {
            "serviceName": POSTGRES,
            "replicas": 1,
            "selector": {"matchLabels": labelled},
            "template": {
                "metadata": {"labels": labelled},
                "spec": {
                    **pod_basis(POSTGRES_USER_ID),
                    "terminationGracePeriodSeconds": 60,
                    "containers": [_postgres_container(secret)],
                    "volumes": [temporary(), temporary("run")],
                },
            },
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": POSTGRES_DISK}}},
                }
            ],
        },
    }
    return [service, server]


def _postgres_container(secret: str) -> Manifest:
    # By TCP: the temporary server that initialises a new database listens on a Unix socket only.
    answers = {"exec": {"command": ["pg_isready", "--host=127.0.0.1", "--username=kmnist", "--dbname=kmnist"]}}
    folder = "/var/lib/postgresql/data"
    return {
        "name": "postgres",
        "image": POSTGRES_IMAGE,
        "args": ["-c", f"max_connections={MAX_CONNECTIONS}"],
        "env": [
            {"name": "POSTGRES_USER", "value": "kmnist"},
            {"name": "POSTGRES_DB", "value": "kmnist"},
            from_secret("POSTGRES_PASSWORD", secret, PASSWORD_KEY),
            # A new disk has a folder lost+found, and Postgres initialises only an empty folder.
            {"name": "PGDATA", "value": f"{folder}/pgdata"},
        ],
        "ports": [{"name": "postgres", "containerPort": POSTGRES_PORT}],
        "readinessProbe": {**answers, "periodSeconds": 5, "timeoutSeconds": 3},
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": container_rights(),
        "volumeMounts": [mount("data", folder), mount("run", "/var/run/postgresql"), mount("tmp", "/tmp")],
    }


def dashboard(
    namespace: str | None, secret: str, image: str, *, own_postgres: bool, artifacts: str, shared: Manifest | None
) -> list[Manifest]:
    """Return the dashboard and its service, for access from within the cluster.

    Args:
        namespace: namespace of the manifests.
        secret: secret with the password for Postgres.
        image: image of this package.
        own_postgres: whether the database is the one made by `postgres`.
        artifacts: folder or bucket of the artifacts.
        shared: volume of that folder; None for a bucket, or if each pod has its own folder.
    """
    volumes = [temporary(), {"name": "password", "secret": {"secretName": DASHBOARD}}]
    container = _dashboard_container(secret, image, artifacts, own_postgres=own_postgres)
    if shared is not None:
        volumes.append(shared)
        container["volumeMounts"].append(mount(shared["name"], CHECKPOINTS, read_only=True))
    labelled = labels("dashboard")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(DASHBOARD, namespace, labelled),
        "spec": {"type": "ClusterIP", "selector": labelled, "ports": [{"name": "http", "port": DASHBOARD_PORT}]},
    }
    server = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(DASHBOARD, namespace, labelled),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labelled},
            "template": {
                "metadata": {"labels": labelled},
                "spec": {
                    **pod_basis(1000),
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }
    return [service, server]


def _dashboard_container(secret: str, image: str, artifacts: str, *, own_postgres: bool) -> Manifest:
    # This path needs neither a password nor the database.
    answers = {"httpGet": {"path": "/health", "port": "http"}}
    return {
        "name": APP,
        "image": image,
        "args": [
            "dashboard",
            "--host=0.0.0.0",
            f"--port={DASHBOARD_PORT}",
            f"--password-file={DASHBOARD_SECRET}/{PASSWORD_KEY}",
        ],
        "env": [
            *database_environment(secret, own_postgres=own_postgres),
            {"name": "KMNIST_SEARCH_ARTIFACTS", "value": artifacts},
            *cache_environment(),
        ],
        "ports": [{"name": "http", "containerPort": DASHBOARD_PORT}],
        "readinessProbe": {**answers, "periodSeconds": 10, "timeoutSeconds": 5},
        # A study of 5,000 trials needs 240 MB (tests/benchmarks/LOG.md).
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": container_rights(),
        "volumeMounts": [mount("tmp", "/tmp"), mount("password", DASHBOARD_SECRET, read_only=True)],
    }
