"""Notes for the user about a Kubernetes job: what to create first, how to watch the job and how to end it."""

from kmnist_search.launch.kubernetes import PASSWORD_KEY, URL_KEY, KubernetesJob

#: The dashboard's service and secret, and its port.
DASHBOARD, DASHBOARD_PORT = "kmnist-search-dashboard", 8080


def notes(job: KubernetesJob, *, is_applied: bool) -> list[str]:
    """Return notes for the user who submits the job, as lines.

    Args:
        job: the job.
        is_applied: whether the cluster has the job already.
    """
    handing_over = [] if is_applied else ["To submit, leave out --dry-run, or: ... | kubectl apply -f -"]
    return ["", *_costs(job), *_secret(job), *_dashboard_secret(job), *handing_over, *_commands(job)]


def _costs(job: KubernetesJob) -> list[str]:
    """Return the consequences of the options that were left out."""
    found = []
    if job.checkpoints_claim is None:
        found.append("Without --checkpoints-claim, checkpoints end with their pod: a lost pod's trials start again.")
        if job.artifacts is None:
            found.append("Without --artifacts, the pictures of the best trials end with their pod, too.")
    if job.data_claim is None:
        found.append("Without --data-claim, each pod downloads the images, unless the data set needs no download.")
    return found


def _secret(job: KubernetesJob) -> list[str]:
    """Return how to create the secret that the pods wait for."""
    make = f"{_kubectl(job)} create secret generic {job.secret}"
    if job.postgres:
        return [
            f"The pods wait for a secret {job.secret} with a password for Postgres. Create it once:",
            f"  openssl rand -hex 24 | tr -d '\\n' | {make} --from-file={PASSWORD_KEY}=/dev/stdin",
        ]
    return [
        f"The pods wait for a secret {job.secret} with the URL of the database. Create it once, then type the URL:",
        f'  read -rs url && printf %s "$url" | {make} --from-file={URL_KEY}=/dev/stdin',
    ]


def _dashboard_secret(job: KubernetesJob) -> list[str]:
    """Return how to create the secret that the dashboard waits for."""
    if not job.dashboard:
        return []
    make = f"{_kubectl(job)} create secret generic {DASHBOARD}"
    return [
        f"The dashboard waits for a secret {DASHBOARD} with the password of its user kmnist. Create it once:",
        f"  openssl rand -hex 12 | tr -d '\\n' | {make} --from-file={PASSWORD_KEY}=/dev/stdin",
    ]


def _commands(job: KubernetesJob) -> list[str]:
    """Return the commands that watch and end the job."""
    kubectl, its_pods = _kubectl(job), f"--selector app.kubernetes.io/instance={job.name}"
    lines = [
        f"pods:  {kubectl} get pods {its_pods}",
        f"logs:  {kubectl} logs --follow --prefix --max-log-requests {max(job.workers, 5)} {its_pods}",
        f"stop:  {kubectl} delete job {job.name}   (running trials go back to the queue; the same command resumes)",
    ]
    if job.retrains:
        lines.append(f"result: model and report will be in {job.result}, on the volume of {job.checkpoints_claim}")
    if job.dashboard:
        forward = f"{kubectl} port-forward service/{DASHBOARD} {DASHBOARD_PORT}"
        lines.append(f"chart: {forward}   then http://127.0.0.1:{DASHBOARD_PORT}/dashboard, user kmnist; its password:")
        lines.append(
            f"       {kubectl} get secret {DASHBOARD} --output jsonpath='{{.data.{PASSWORD_KEY}}}' | base64 --decode"
        )
    return lines


def _kubectl(job: KubernetesJob) -> str:
    return "kubectl" if job.namespace is None else f"kubectl --namespace {job.namespace}"
