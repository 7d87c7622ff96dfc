"""Injects one fault into a job of `plait attend` and checks that its failure is loud and bounded.

    python3 faults.py FAULT PLAIT HOSTS_SCRIPT

FAULT is one of the functions at the end of this file. For every fault: the job's exit code, the seconds from
the fault to the job's end, what the message names, no output file or .part file, no rank that lives on.
Exit code 0 if all holds, 1 if not, 77 if this machine cannot show the fault.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from job import MPIRUN, Fault, Job

RANKS = 3
HEADS, KV_HEADS, DIM = 2, 1, 128
SLICE = 4096  # tokens of a rank: such slices travel in pieces, so that rounds are many and short
SKIPPED = 77
PEER_LOST = 75
FAILED = 1
DAEMON_LOST = 205  # mpirun's own, when a host's daemon is gone


class Bench:
    """A scratch folder, the program, and inputs that it made."""

    def __init__(self, plait, hosts_script, scratch):
        self.plait, self.hosts_script, self.scratch = plait, hosts_script, pathlib.Path(scratch)
        self.out_folder = self.scratch / "out"
        self.out_folder.mkdir()
        self.out = self.out_folder / "out.safetensors"

    def generate(self, tokens, heads=HEADS):
        """A bf16 input of `tokens` tokens."""
        path = self.scratch / f"input-{tokens}-{heads}.safetensors"
        subprocess.run([self.plait, "generate", "--tokens", str(tokens), "--heads", str(heads), "--kv-heads",
                        str(KV_HEADS), "--dim", str(DIM), "--dtype", "bf16", "--output", path],
                       check=True, stdout=subprocess.DEVNULL)
        return path

    def attend(self, source, *arguments):
        """The ring, in which ranks exchange blocks until the last round: others may have all early, and a fault would
        then find nothing in flight."""
        return [self.plait, "attend", "--input", str(source), "--output", str(self.out), "--strategy", "ring", *arguments]

    def long_input(self, ranks, seconds):
        """An input whose full attention takes these ranks about so long here, judged by a small one; a fault in the
        first rounds finds others still to come even if the machine is freer by then."""
        tokens = SLICE
        report = self.scratch / "report.json"
        with Job([*MPIRUN, "-np", str(ranks), *self.attend(self.generate(tokens), "--json", str(report))],
                 self.scratch) as job:
            code, _ = job.end(120)
            if code != 0:
                raise Fault(f"without a fault the job ends with {code}:\n{job.output()}")
        took = json.loads(report.read_text())["seconds"]["max"]
        self.out.unlink()
        longer = seconds / max(took, 1e-3) / ranks**2  # time goes with the heads, and the square of the tokens
        return self.generate(tokens * ranks, min(max(round(HEADS * longer), HEADS), 128))

    def expect(self, job, injected, within, code, *patterns):
        """Waits for the job's end, and checks code, time, messages, files and processes.
        @param code  the exit code; several that are right; or None for any but 0"""
        got, ended = job.end(within + 30)  # so that a slow end is told from none
        seconds, output = ended - injected, job.output()
        problems = []
        if seconds > within:
            problems.append(f"it ended {seconds:.1f} s after the fault; at most {within} s are fine")
        codes = code if isinstance(code, tuple) else (code,)
        if got == 0 or (code is not None and got not in codes):
            problems.append(f"its exit code is {got}, not {'non-zero' if code is None else code}")
        problems += [f"no line of its output matches /{pattern}/" for pattern in patterns
                     if not re.search(pattern, output)]
        if left := sorted(path.name for path in self.out_folder.rglob("*") if path.is_file()):
            problems.append(f"it left {left}")
        if alive := job.survivors():
            problems.append(f"ranks outlive it: {alive}")
        if problems:
            raise Fault("; ".join(problems) + f"\nThe job's output:\n{output}")
        told = next((line for line in output.splitlines() if re.search(patterns[0], line)), "")
        print(f"ended {seconds:.1f} s after the fault with exit code {got}: {told.strip()}")


def killed_rank(bench):
    source = bench.long_input(RANKS, 24)
    with Job([*MPIRUN, "-np", str(RANKS), *bench.attend(source)], bench.scratch) as job:
        pids = job.wait_until_computing(RANKS, cpu_seconds=1)
        injected = time.monotonic()
        os.kill(pids[1], signal.SIGKILL)
        # Far below the default timeout of 60 s: the death itself is noticed.
        bench.expect(job, injected, 10, None, r"(?i)rank 1\b.*(signal 9|killed|lost)")


def stopped_rank(bench):
    timeout = 3
    source = bench.long_input(RANKS, 24)
    with Job([*MPIRUN, "-np", str(RANKS), *bench.attend(source, "--timeout", str(timeout))],
             bench.scratch) as job:
        pids = job.wait_until_computing(RANKS, cpu_seconds=1)
        injected = time.monotonic()
        os.kill(pids[1], signal.SIGSTOP)
        bench.expect(job, injected, timeout + 10, PEER_LOST, peer_lost(r"\d", 1))


def link_down(bench):
    timeout, after = 3, 4
    if not os.path.exists(bench.hosts_script):
        raise Fault(f"{bench.hosts_script} is missing")
    source = bench.long_input(2, 20)
    with Job([bench.hosts_script, "--hosts", "2", "--rate", "1gbit", "--ranks-per-host", "1",
              "--link-down-after", str(after), "--", *bench.attend(source, "--timeout", str(timeout))],
             bench.scratch) as job:
        job.end(after + timeout + 60)
        if job.process.returncode == SKIPPED:
            print(job.output().strip())
            sys.exit(SKIPPED)
        # Two notice: a rank by its deadline, and mpirun by the daemon that it lost. Who is first gives the exit code,
        # and may end the other before it has spoken.
        bench.expect(job, job.started + after, timeout + 20, (PEER_LOST, DAEMON_LOST),
                     peer_lost(r"\d", r"\d") + r"|Remote daemon: .* on node plait")


def differing_flags(bench):
    source = bench.generate(4096)
    with Job([*MPIRUN, "-np", "2", *bench.attend(source, "--causal"), ":", "-np", "1", *bench.attend(source)],
             bench.scratch) as job:
        bench.expect(job, job.started, 20, FAILED, r"ranks were not started with the same",
                     r"rank 2: mask:", r"ranks 0-1: mask:")


def truncated_input(bench):
    source = bench.generate(4096)
    os.truncate(source, os.path.getsize(source) * 3 // 4)
    with Job([*MPIRUN, "-np", str(RANKS), *bench.attend(source, "--causal")], bench.scratch) as job:
        bench.expect(job, job.started, 20, FAILED, re.escape(str(source)) + r".*\bbytes\b")


def full_disk(bench):
    """The output goes to a file system with room for half of it."""
    source = bench.generate(4096)  # its output is 2 MiB
    with contextlib.ExitStack() as mounted:
        if not mount_small(bench.out_folder):
            print("skipped: mounting a small file system needs root")
            sys.exit(SKIPPED)
        mounted.callback(subprocess.run, ["umount", bench.out_folder], check=True)
        with Job([*MPIRUN, "-np", str(RANKS), *bench.attend(source, "--causal")], bench.scratch) as job:
            bench.expect(job, job.started, 20, FAILED, re.escape(str(bench.out)) + ".*(room|No space left)")


def file_size_limit(bench):
    """The disk has room, but writing fails half-way, for files may not grow beyond half of the output."""
    source = bench.generate(4096)
    # The signal is ignored so that it is an error of the call, as on a full disk.
    limited = ["bash", "-c", "trap '' XFSZ; ulimit -f 1024; exec \"$@\"", "bash",
               *bench.attend(source, "--causal")]
    # MPI's shared memory is files too, and would meet the limit first: sockets need none.
    with Job([*MPIRUN, "--mca", "btl", "self,tcp", "-np", str(RANKS), *limited], bench.scratch) as job:
        bench.expect(job, job.started, 20, FAILED, re.escape(str(bench.out)) + ".*File too large")


def peer_lost(rank, peer):
    """A deadline's message as DESIGN asks for it: rank, host, round, peer, block."""
    return (rf"rank {rank} \(host \S+\), round \d+: rank {peer} \(host \S+\) .* for [\d.]+ s, "
            r"while .*(kv|q|state) \[\d+, \d+\)")


def mount_small(folder):
    return os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], stderr=subprocess.DEVNULL).returncode == 0


FAULTS = {fault.__name__: fault for fault in
          (killed_rank, stopped_rank, link_down, differing_flags, truncated_input, full_disk,
           file_size_limit)}


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in FAULTS:
        sys.exit(f"usage: faults.py {'|'.join(FAULTS)} PLAIT HOSTS_SCRIPT")
    scratch = tempfile.mkdtemp(prefix="plait-fault-")
    try:
        FAULTS[sys.argv[1]](Bench(sys.argv[2], sys.argv[3], scratch))
    except Fault as fault:
        sys.exit(f"{sys.argv[1]}: {fault}")
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
