"""A Slurm cluster of the tests' own: one node of this machine, with four GPUs that are none. It takes root.

Its daemons listen on loopback only, keep everything in one folder and are gone afterwards, with all that they ran.
"""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

GPUS = 4
#: What a task that asks for nothing gets, and another one.
PARTITION, OTHER_PARTITION = "main", "other"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "squeue")


def reason_for_none() -> str | None:
    """Return why no cluster can be started here; None if one can."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"no {', '.join(missing)} here: install Debian's slurm-wlm and munge"
    if os.getuid() != 0:
        return "a Slurm node runs as root only"
    return None


class SlurmCluster:
    """Munge, a controller and one node, on free ports of 127.0.0.1."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kmnist-search-slurm-"))
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.configuration = self.folder / "slurm.conf"
        self._write_configuration()
        try:
            self._start()
        except BaseException:
            self._end_daemons()
            raise

    @property
    def environment(self) -> dict[str, str]:
        """What makes Slurm's commands speak to this cluster."""
        return {"SLURM_CONF": str(self.configuration)}

    def ask(self, *command: str) -> str:
        """Return what one of Slurm's commands prints; what it says of an error, if it fails."""
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            env={**os.environ, **self.environment},
        )
        return done.stdout

    def do(self, *command: str) -> None:
        """Run one of Slurm's commands, which must succeed."""
        subprocess.run(command, check=True, timeout=240, env={**os.environ, **self.environment})

    def submit(self, script: str, **environment: str) -> str:
        """Submit a script as it is; return the job's id."""
        done = subprocess.run(
            ["sbatch", "--parsable"],
            input=script,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=240,
            env={**os.environ, **self.environment, **environment},
        )
        return done.stdout.strip()

    def states(self, job: str) -> dict[str, str]:
        """Return the states of a job's tasks by their number in the array, as long as the controller knows them."""
        shown = self.ask("squeue", "--noheader", "--array", "--states=all", "--jobs", job, "--format=%K %T")
        return dict(line.split() for line in shown.splitlines() if not line.startswith("slurm_load_jobs error"))

    def ended(self, job: str, *, explain: Callable[[], str] = str) -> dict[str, str]:
        """Wait until no task of a job is waiting, running or ending any more; return how they ended."""
        unfinished = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"}
        wait_for(
            lambda: not unfinished & set(self.states(job).values()),
            lambda: f"{self.ask('squeue')}\n{explain()}",
            seconds=600,
        )
        return self.states(job)

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-4000:]}" for path in self.folder.glob("*.log"))

    def cancel_all(self) -> None:
        """End all jobs at once."""
        self.do("scancel", "--user=root")
        self.do("scancel", "--user=root", "--signal=KILL", "--full")
        wait_for(lambda: not self.ask("squeue", "-h").strip(), lambda: self.ask("squeue"))

    def stop(self) -> None:
        """End the jobs, then the daemons, then whatever is left of them."""
        try:
            self.cancel_all()
        finally:
            self._end_daemons()

    def _start(self) -> None:
        self._start_munge()
        self._daemon("slurmctld", "-D", "-c", "-f", str(self.configuration))
        # A node that comes before its controller tries again only much later.
        wait_for(lambda: "is UP" in self.ask("scontrol", "ping"), self.logs)
        self._daemon("slurmd", "-D", "-N", "ci0", "-f", str(self.configuration))
        wait_for(lambda: self.ask("sinfo", "-h", "-o", "%T").strip() == "idle", self.logs)

    def _end_daemons(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(5)
            daemon.kill()
            daemon.wait()
        for process in self._left():
            process.kill()
        shutil.rmtree(self.folder)

    def _left(self) -> Iterator[psutil.Process]:
        """Return the processes that know this cluster: its daemons' children, and the tasks."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if str(self.folder) in " ".join([*process.cmdline(), process.environ().get("SLURM_CONF", "")]):
                    yield process

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(64))
        key.chmod(0o600)
        files = {"key-file": key, **{f"{name}-file": self.folder / f"munge.{name}" for name in ("pid", "seed")}}
        options = [f"--{name}={path}" for name, path in files.items()]
        self._daemon(
            "munged", "--foreground", "--force", f"--socket={self._socket}", "--log-file=/dev/stderr", *options
        )
        wait_for(self._socket.exists, self.logs)

    @property
    def _socket(self) -> Path:
        return self.folder / "munge.socket"

    def _daemon(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.log").open("wb") as log:
            self.daemons.append(
                subprocess.Popen(
                    [program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    start_new_session=True,
                    env={**os.environ, **self.environment},
                )
            )

    def _write_configuration(self) -> None:
        host = socket.gethostname()
        controller_port, node_port = _free_ports(2)
        for gpu in range(GPUS):
            (self.folder / f"gpu{gpu}").symlink_to("/dev/null")
        (self.folder / "gres.conf").write_text(f"NodeName=ci0 Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n")
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self.configuration.write_text(
            f"""\
ClusterName=ci
SlurmUser=root
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
AuthType=auth/munge
# A node that is to run a task again waits until the task's credential has run out: two minutes by default.
AuthInfo=socket={self._socket},cred_expire=5
# Else the daemons listen on every address of this machine.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
MpiDefault=none
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,bf_interval=1
EnforcePartLimits=ANY
NodeName=ci0 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=8 RealMemory=16000 Gres=gpu:{GPUS}
PartitionName={PARTITION} Nodes=ci0 Default=YES MaxTime=1-0
PartitionName={OTHER_PARTITION} Nodes=ci0
"""
        )


def _free_ports(number: int) -> Sequence[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(
    ready: Callable[[], bool], explain: Callable[[], str], *, seconds: float = 300, every: float = 0.3
) -> None:
    """Wait until `ready()`, which costs a process of Slurm's; fail with what `explain()` says if it takes too long."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain:\n{explain()}"
        time.sleep(every)
