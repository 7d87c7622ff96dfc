"""A job of several ranks under mpirun, watched from outside: its rank processes, its output, its end."""

import os
import pathlib
import signal
import subprocess
import time
import uuid

JOB_VARIABLE = "PLAIT_FAULT_JOB"  # marks every process of one job, also those that outlive their parents
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Fault(AssertionError):
    """The job did not meet a fault as it should."""


class Job:
    """Runs `command` in the background with its output in a file."""

    def __init__(self, command, scratch):
        self.ended = None
        self.mark = uuid.uuid4().hex
        self.output_path = pathlib.Path(scratch, f"output-{self.mark}.txt")
        environment = os.environ | {
            JOB_VARIABLE: self.mark, "OMP_NUM_THREADS": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }
        with open(self.output_path, "wb") as output:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Leaves nothing behind, however the test went: first the launcher, so that it starts no more."""
        if self.process.poll() is None:
            self.process.terminate()
        for pid in set(self.processes()) - {self.process.pid}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            self.process.wait(timeout=20)  # a script that made hosts for the job takes them down
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def output(self):
        return self.output_path.read_text(errors="replace")

    def processes(self):
        """{pid: environment} of the job's living processes, launchers included."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                variables = dict(word.split("=", 1) for word in
                                 (entry / "environ").read_text(errors="replace").split("\0") if "=" in word)
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue  # gone meanwhile, or another user's
            if variables.get(JOB_VARIABLE) == self.mark and state != "Z":
                found[int(entry.name)] = variables
        return found

    def ranks(self):
        """{rank: pid}. A wrapper around the program would have the same variables: the youngest pid is it."""
        processes = sorted(self.processes().items())
        return {int(variables["OMPI_COMM_WORLD_RANK"]): pid for pid, variables in processes
                if "OMPI_COMM_WORLD_RANK" in variables}

    def wait_until_computing(self, ranks, cpu_seconds, limit=120.0):
        """Returns {rank: pid} as soon as the plan is told and each rank has used so much CPU time since then:
        the rounds have begun."""
        before = None
        while time.monotonic() < self.started + limit:
            if self.process.poll() is not None:
                raise Fault(f"it ended with {self.process.returncode} before the fault:\n{self.output()}")
            pids = self.ranks()
            if len(pids) == ranks and "Plan:" in self.output():
                used = {rank: cpu_time(pid) for rank, pid in pids.items()}
                before = before or used
                if all(used[rank] >= before[rank] + cpu_seconds for rank in pids):
                    return pids
            time.sleep(0.05)
        raise Fault(f"{ranks} ranks were not computing after {limit} s:\n{self.output()}")

    def end(self, limit):
        """(exit code, time of the end); fails if the job lives longer than `limit` seconds from now."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Fault(f"the job still lives {limit} s after the fault:\n{self.output()}") from None
        self.ended = self.ended or time.monotonic()
        return (code if code >= 0 else 128 - code), self.ended

    def survivors(self, grace=5.0):
        """Ranks that outlive the launcher by more than `grace` seconds."""
        last = time.monotonic() + grace
        while (alive := self.ranks()) and time.monotonic() < last:
            time.sleep(0.1)
        return alive


def cpu_time(pid):
    """Seconds of CPU time that the process has used; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
