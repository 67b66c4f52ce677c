"""Start a Slurm of one node, run the example of docs/distributed.md on it, and compare its file with that of one machine.

Needs Debian's slurm-wlm and munge, and root, since slurmd starts jobs as their users; says so and ends with 0 where something is missing.
Everything lives in a temporary folder, and the daemons end with the script.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[1] / "docs" / "distributed.md"
SECONDS = 60.0  # for the node to come up

CONF = """
ClusterName=caloforge
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why there can be no Slurm here; empty when there can."""
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")
    lacking = [name for name in programs if shutil.which(name, path=_path()) is None]
    if lacking:
        return f"{', '.join(lacking)} not found; Debian: apt-get install slurm-wlm munge"
    modules = [name for name in ("distributed", "dask_jobqueue") if find_spec(name) is None]
    if modules:
        return f"{', '.join(modules)} not installed; pip install 'caloforge[distributed]'"
    return "" if os.geteuid() == 0 else "slurmd starts jobs as their users, which needs root"


def example() -> str:
    """Return the block of the page."""
    found = re.search(r"```python slurm\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if found is None:
        raise SystemExit(f"{PAGE}: has no block ```python slurm")
    return found[1]


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Node:
    """munged, slurmctld and slurmd in a folder, in a ``with`` block."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, socket.gethostname().partition(".")[0]
        self.environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Node:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        facts = {
            "host": self.host,
            "folder": self.folder,
            "cpus": os.cpu_count(),
            "memory": int(0.9 * memory),
        }
        conf = self.folder / "slurm.conf"
        conf.write_text(CONF.format(**facts, ports=_free_ports(2)))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainCores=no\n")
        files = [f"--{name}={self.folder}/munge.{end}" for name, end in _MUNGE]
        self._run("munged", "--foreground", "--force", *files)
        self._wait("munge", lambda: (self.folder / "munge.socket").exists())
        self._run("slurmctld", "-D", "-f", str(conf))
        self._run("slurmd", "-D", "-f", str(conf), "-N", self.host)
        self._wait("the node", lambda: "idle" in self.output("sinfo", "-h", "-o", "%T"))

    def _run(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.log").open("wb") as log:
            command = [str(shutil.which(program, path=_path())), *arguments]
            self._daemons.append(subprocess.Popen(command, stdout=log, stderr=log, env=self.environment))

    def _wait(self, what: str, ready: object) -> None:
        end = time.monotonic() + SECONDS
        while not ready():  # type: ignore[operator]
            dead = [daemon.args[0] for daemon in self._daemons if daemon.poll() is not None]  # type: ignore[index]
            if dead or time.monotonic() > end:
                logs = "\n".join(
                    path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*.log")
                )
                raise SystemExit(
                    f"{what} did not come up ({', '.join(map(str, dead)) or 'no time left'}):\n{logs}"
                )
            time.sleep(0.5)

    def output(self, *command: str) -> str:
        """Return what a command of Slurm prints."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        ).stdout


_MUNGE = (
    ("key-file", "key"),
    ("socket", "socket"),
    ("pid-file", "pid"),
    ("log-file", "log"),
    ("seed-file", "seed"),
)


def main() -> None:
    """Run the example."""
    if reason := missing():
        print(f"skipped: {reason}")
        return
    from caloforge.showers import read_showers
    from caloforge.simulate import simulate

    with tempfile.TemporaryDirectory(prefix="slurm-") as name, Node(Path(name)) as node:
        work = Path(name) / "work"
        work.mkdir()
        (work / "example.py").write_text(example())
        print(
            f"slurm: {node.output('sinfo', '-h', '-o', '%P %D %T %c CPUs').strip()}, {node.output('sinfo', '-V').strip()}"
        )
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "example.py"], cwd=work, env=node.environment, timeout=600, check=False
        )
        if done.returncode:
            logs = "\n".join(path.read_text(errors="replace")[-3000:] for path in work.glob("slurm-*.out"))
            raise SystemExit(f"the example ended with {done.returncode}\n{node.output('squeue')}\n{logs}")
        print(
            f"the example ran in {time.monotonic() - began:.0f} s; jobs that it started: {len(list(work.glob('slurm-*.out')))}"
        )
        there = read_showers(work / "showers.h5")
        here = simulate("ild-ecal", n=len(there), engine="gflash", seed=there.seed or 0)
        same = np.array_equal(here.cells, there.cells) and np.array_equal(
            here.incident_energy, there.incident_energy
        )
        print(f"{len(there)} showers, {'equal to' if same else 'DIFFERENT from'} those of one machine")
        raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
