"""A Slurm of its own on this machine: one node, for as long as a test module runs.

It holds jobs to nothing, as on sites without cgroups. The programs are those of the
package ``slurm-wlm`` of Debian, and need the rights of root.
"""

import os
import shutil
import socket
import subprocess
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue")

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={folder}/munge.sock,cred_expire=5
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=pmi2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES
"""


class Slurm:
    """Jobs of a Slurm that was started in a folder, and is ended by `end`."""

    def __init__(self, folder):
        missing = [
            name for name in PROGRAMS if shutil.which(name, path=_path()) is None
        ]
        if missing or os.geteuid() != 0:
            msg = f"needs the rights of root, and {missing} of slurm-wlm in PATH"
            raise AssertionError(msg)
        self.environment = {
            **os.environ,
            "PATH": _path(),
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        self._daemons = []
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        text = CONF.format(host=host, ports=_free_ports(), folder=folder)
        (folder / "slurm.conf").write_text(text)
        self._start(
            folder,
            *("munged", "--force", "--foreground", f"--key-file={folder}/munge.key"),
            f"--socket={folder}/munge.sock",
            *(f"--{n}-file={folder}/munge.{n}" for n in ("pid", "log", "seed")),
        )
        self._start(folder, "slurmctld", "-D")
        self._start(folder, "slurmd", "-D")
        self._wait(lambda: "idle" in self.run("sinfo", "--noheader", "-o", "%T"))

    def run(self, *command, folder=None):
        """Run one of Slurm's commands; return what it prints."""
        done = subprocess.run(
            command, env=self.environment, cwd=folder, capture_output=True, text=True
        )
        return done.stdout.strip()

    def submit(self, folder, script, *options):
        """Submit a batch script, which prints to the file ``out`` of the folder."""
        path = folder / "job.sh"
        path.write_text(f"#!/bin/bash\n{script}")
        always = ("--parsable", "--output=out", "--open-mode=append")
        job = self.run("sbatch", *always, *options, str(path), folder=folder)
        assert job, "sbatch refused the job"
        return job

    def wait(self, job, seconds=60):
        """Wait until a job has ended."""
        self._wait(lambda: not self.run("squeue", "--noheader", "-j", job), seconds)

    def end(self):
        """End all of it, jobs first."""
        self.run("scancel", "--user=root")
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(20)

    def _start(self, folder, *command):
        with (folder / f"{command[0]}.out").open("w") as out:
            self._daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)
            )

    @staticmethod
    def _wait(condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.2)


def _path():
    return f"{os.environ['PATH']}{os.pathsep}/usr/sbin"


def _free_ports():
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
