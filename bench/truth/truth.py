#!/usr/bin/env python3
"""Predicted against measured: is the simulator right, and does the planner pick well?

Makes hosts on one machine (network namespaces, tests/network/hosts.sh) whose links carry a given rate, calibrates a
machine there (`plait calibrate`), and then, for each case (tokens, heads, mask), runs every plan that `plait plan`
weighs, several times and in turn (round robin: this machine's speed drifts), with `plait attend`, and those that may be
the best more often: the least of several medians is too low by chance, and picks are judged by it. (Jobs drawn from
recorded ones of seven equal plans: a pick looks more than 5% slower than the best in 7% of cases with 9 jobs of each, in
2.5% with 12.) Compares the bytes moved with those planned, the median time with the predicted one, and the planner's pick
with the best measured plan.

The calibration before a case predicts and picks, as a user's would. One after it, which is the one before the next case,
tells whether the machine kept its speed: if it predicts the case's plans to take 10% longer or shorter (their median),
the case is marked, and measured again up to --retry times. The first attempt without a mark counts, or else the one with
the least change; what jobs took has no say. The other attempts are kept in truth.json, and the report counts them.

Writes truth.csv, truth.md and what was measured (truth.json), and the last machine, to a folder; cases that a later
call measures replace those there. Needs root, iproute2, mpirun and build/bin/plait; exits with 77 where hosts cannot be made.
Leaves no namespace behind, also after a failure or an interrupt.

    python3 bench/truth/truth.py                                         2 hosts, 1 Gbit/s: about ten minutes
    python3 bench/truth/truth.py --hosts 4 --rate 4gbit --cases 0,3..5 --out FOLDER
"""

import argparse
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import report

TOP = pathlib.Path(__file__).resolve().parents[2]
HOSTS = TOP / "tests/network/hosts.sh"
CALIBRATIONS = 3  # in a row at most: one says itself if it should be repeated


@dataclasses.dataclass
class Problem:
    """One case: sizes, heads, mask."""

    queries: int
    keys: int
    heads: int
    kv_heads: int
    dim: int
    dtype: str
    mask: str

    @property
    def name(self):
        tokens = f"{self.queries}" if self.queries == self.keys else f"{self.queries} × {self.keys}"
        return f"{self.heads}:{self.kv_heads} heads, {tokens} tokens, {self.mask}"

    @property
    def shape_words(self):
        return ["--tokens", self.queries, "--kv-tokens", self.keys, "--heads", self.heads, "--kv-heads", self.kv_heads,
                "--dim", self.dim, "--dtype", self.dtype]

    @property
    def mask_words(self):
        if self.mask == "causal documents":
            lengths = [self.queries // 8, self.queries // 2, self.queries // 16]
            return ["--causal", "--documents", ",".join(map(str, [*lengths, self.queries - sum(lengths)]))]
        return ["--causal"] if self.mask == "causal" else []

    @property
    def words(self):
        return (f"{self.queries} queries, {self.keys} keys, {self.heads} query over {self.kv_heads} key/value heads of "
                f"{self.dim}, {self.dtype}, mask: {' '.join(self.mask_words) or 'full'}")


def problems(sizes):
    """Cases in which folds and transfers both matter on links of about 1 Gbit/s and cores of 20 to 60 GFLOP/s."""
    if sizes == "tiny":
        return [Problem(256, 256, 2, 1, 32, "f32", "causal"), Problem(16, 256, 2, 2, 32, "f32", "full")]
    masked = [Problem(tokens, tokens, heads, kv_heads, 128, "f32", mask)
              for tokens, heads, kv_heads in ((1024, 16, 16), (2048, 8, 2), (4096, 1, 1))
              for mask in ("full", "causal", "causal documents")]
    few_queries = Problem(64, 8192, 8, 8, 128, "f32", "full")  # the states are far smaller than the keys
    return [*masked, few_queries]


def busy_share(seconds=0.3):
    """The share of the cores that are in use, while we use none."""
    def busy():
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, softirq, *_ = map(int, file.readline().split()[1:])
        return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    start, before = time.monotonic(), busy()
    time.sleep(seconds)
    return (busy() - before) / (time.monotonic() - start) / os.cpu_count()


class Bench:
    """Runs plait on the hosts (jobs) and beside them (plans); meant for the first host."""

    def __init__(self, asked, folder):
        self.asked, self.folder = asked, pathlib.Path(folder)
        self.launcher = os.environ["PLAIT_RANKS"]
        self.ranks = asked.hosts * asked.ranks_per_host
        self.calibrates = not asked.machine and can_calibrate(asked.plait)
        self.machine, self.said = {}, ""  # the latest calibrated one, and what its calibration said
        self.quiet_at = -1e9  # when the cores were last seen idle
        self.repeated = 0  # calibrations that asked for it: the machine changed while they ran
        self.disturbed = 0  # jobs that were measured although others used the cores

    def quiet(self, work):
        """What `work` returns, begun when the cores are idle and, a few times at most, done again if they are not after."""
        attempts, patience = 4, 60
        for _ in range(attempts):
            end = time.monotonic() + patience
            if time.monotonic() - self.quiet_at > 0.5:  # else the last job's end has told
                while busy_share() > self.asked.others and time.monotonic() < end:
                    time.sleep(1)
            found = work()
            if busy_share() <= self.asked.others:
                self.quiet_at = time.monotonic()
                return found
        self.disturbed += 1
        return found

    def plait(self, *words, on_hosts=False):
        command = [self.launcher] if on_hosts else []
        command += [str(self.asked.plait), *map(str, words)]
        # A job outlives no limit: a hang of one plan must not take the whole table with it.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=self.asked.limit)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def calibrate(self):
        """Sets the machine that predicts from now on, where it is to be calibrated; as the cases are run."""
        if not self.calibrates:
            return
        path = self.asked.out / "machine.json"
        words = ["calibrate", "--dtype", "f32", "--dim", 128, "--threads", 1, "--output", path]
        self.said = ""
        for _ in range(CALIBRATIONS):
            found = self.quiet(lambda: self.plait(*words, on_hosts=True))
            self.said += found
            if "changed speed while it was calibrated" not in found:
                break
            self.repeated += 1
        self.machine = json.loads(path.read_text())

    @property
    def machine_words(self):
        asked = self.asked
        if self.machine:
            return ["--machine", asked.out / "machine.json"]
        if asked.machine:
            return ["--machine", asked.machine]
        return ["--fold-rate", asked.fold_rate, "--bandwidth", asked.bandwidth, "--latency", asked.latency,
                "--ranks-per-node", asked.ranks_per_host]

    def plan(self, problem):
        """What the planner weighs for these ranks, and what it takes."""
        return json.loads(self.plait("plan", *problem.shape_words, *problem.mask_words, "--ranks", self.ranks,
                                     *self.machine_words, "--weigh", "all", "--json", "-"))

    def attend(self, problem, source, candidate):
        """The JSON report of one job: several runs of one plan."""
        words = ["attend", "--input", source, *problem.mask_words, "--strategy", candidate["strategy"], "--layout",
                 candidate["layout"], "--threads", 1, "--repeat", self.asked.repeat, "--json", "-"]
        return json.loads(self.quiet(lambda: self.plait(*words, on_hosts=True)))

    def measure_turn(self, problem, source, rows, weighed):
        """Adds one job to each of these rows; weighed is what the planner says of them, by strategy and layout."""
        for row in rows:
            candidate = weighed[row.strategy, row.layout]
            found = self.attend(problem, source, candidate)
            row.seconds.append(found["seconds"]["median"])
            row.planned_bytes, row.moved_bytes = found["bytes"]["planned"], found["bytes"]["moved"]
            if max(row.planned_bytes) != candidate["bytes_max"]:
                raise RuntimeError(f"{problem.name}: {row.strategy}: attend and plan disagree on the bytes")

    def measure(self, problem):
        """The case that counts of up to 1 + retry attempts, with the others."""
        attempts = [self.attempt(problem)]
        while attempts[-1].changed and len(attempts) <= self.asked.retry:
            attempts.append(self.attempt(problem))
        return report.counted(attempts)

    def attempt(self, problem):
        """A report.Case: all jobs, between the latest calibration and a new one.
        @raise RuntimeError if a job fails: bytes that differ from the plan's are one way to"""
        plan = self.plan(problem)
        source = self.folder / "input.safetensors"
        self.plait("generate", *problem.shape_words, "--output", source)
        able = [candidate for candidate in plan["candidates"] if not candidate["refused"]]
        measured = worth_measuring(able, self.asked.within)
        rows = [report.Row(case=problem.name, strategy=candidate["strategy"], layout=candidate["layout"],
                           predicted_seconds=candidate["predicted_seconds"],
                           picked=(candidate["strategy"], candidate["layout"]) == (plan["strategy"], plan["layout"]),
                           seconds=[], planned_bytes=[], moved_bytes=[], slots_bytes=candidate["slots_bytes"]) for candidate in measured]
        case = report.Case(name=problem.name, words=problem.words, rows=rows, skipped=len(able) - len(measured),
                           machine=self.machine, said=[self.said],
                           refused=sorted({(candidate["strategy"], candidate["refused"])
                                           for candidate in plan["candidates"] if candidate["refused"]}))
        weighed = {(candidate["strategy"], candidate["layout"]): candidate for candidate in measured}
        for _ in range(self.asked.rounds):
            self.measure_turn(problem, source, rows, weighed)
        measure_contenders(case, ((self.asked.close, self.asked.most), (self.asked.closest, self.asked.most_closest)),
                           lambda turn: self.measure_turn(problem, source, turn, weighed))
        if self.calibrates:
            self.calibrate()
            case.after = self.machine
            case.said.append(self.said)
            after = {(candidate["strategy"], candidate["layout"]): candidate["predicted_seconds"]
                     for candidate in self.plan(problem)["candidates"] if not candidate["refused"]}
            for row in rows:
                row.predicted_after = after[row.strategy, row.layout]
        return case


def contenders(case, close, most):
    """Those that may be the best, as far as noise lets one tell, and the pick: which of them have fewer jobs than `most`.
    None if nothing but the pick's own plan, under whatever name, may be."""
    limit = close * case.pooled_seconds(case.best)
    able = [row for row in case.rows if row.picked or case.pooled_seconds(row) <= limit]
    if all(row.plan == case.picked.plan for row in able):
        return []
    return [row for row in able if len(case.pooled(row)) < most]


def measure_contenders(case, stages, measure):
    """One job more of each contender, turn by turn, until none has fewer than `most`: for each stage (close, most) in its
    order. `measure` adds a job to each of the rows that it is given."""
    for close, most in stages:
        while turn := contenders(case, close, most):
            measure(turn)


def worth_measuring(candidates, within):
    """Those predicted to take no more than so many times the best, and each strategy's best: the rest cannot win."""
    by_time = sorted(candidates, key=lambda candidate: candidate["predicted_seconds"])
    best_of_each = {}
    for candidate in by_time:
        best_of_each.setdefault(candidate["strategy"].split(":")[0], candidate)
    most = within * by_time[0]["predicted_seconds"]
    return [candidate for candidate in candidates
            if candidate["predicted_seconds"] <= most or candidate in best_of_each.values()]


def can_calibrate(plait):
    return subprocess.run([plait, "calibrate", "--help"], capture_output=True).returncode == 0


def inside(asked):
    """On the first host: measures all cases and writes the tables after each, so that an interrupt loses little."""
    network = {"hosts": asked.hosts, "ranks": asked.hosts * asked.ranks_per_host, "rate": asked.rate}
    asked.out.mkdir(parents=True, exist_ok=True)
    print(f"first host: {os.uname().nodename}", flush=True)
    with tempfile.TemporaryDirectory(prefix="plait-truth-") as folder:
        bench = Bench(asked, folder)
        facts = (f"medians of {asked.rounds} jobs, up to {asked.most} of those that stay within {asked.close} times the best "
                 f"and of the pick, up to {asked.most_closest} of those within {asked.closest} times, each the median of {asked.repeat} "
                 "runs, all plans of a case in turn; "
                 + ("machine calibrated there before and after each case" if bench.calibrates
                    else f"machine, not calibrated: {' '.join(map(str, bench.machine_words))}"))
        bench.calibrate()
        every = problems(asked.sizes)
        found = report.load(asked.out / "truth.json", {problem.name for problem in every})
        for index in asked.cases or range(len(every)):
            case = bench.measure(every[index])
            found[case.name] = case
            cases = [found[problem.name] for problem in every if problem.name in found]
            report.save(asked.out / "truth.json", cases)
            report.write_csv(asked.out / "truth.csv", cases, network)
            (asked.out / "truth.md").write_text(report.markdown(cases, network, facts))
            print(f"{case.name}: {len(case.rows)} plans; picked {report.name(case.picked)}, "
                  f"{case.regret:.2f} times the best measured, {report.name(case.best)}; machine changed by "
                  f"{', '.join(report.percent(one.change) for one in report.attempts([case]))}; {bench.repeated} calibrations repeated, "
                  f"{bench.disturbed} jobs disturbed",
                  flush=True)
    print(json.dumps(report.summary(cases), indent=2))
    return 0 if all(row.bytes_equal for case in cases for row in case.rows) else 1


def on_hosts(words, asked):
    """Runs this script again, inside. Signals reach the whole group, and hosts.sh is waited for: it cleans up."""
    command = [HOSTS, "--hosts", str(asked.hosts), "--rate", asked.rate, "--ranks-per-host", str(asked.ranks_per_host),
               "--once", "--", sys.executable, str(pathlib.Path(__file__).resolve()), "--inside", *words]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)
    stopped = []

    def stop(number, _):
        stopped.append(number)
        os.killpg(process.pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    code = process.wait()
    return 128 + stopped[0] if stopped else code


def numbers(text):
    """"0,3..5" as [0, 3, 4, 5]."""
    found = []
    for item in text.split(","):
        first, _, last = item.partition("..")
        found += range(int(first), int(last or first) + 1)
    return found


def parse(words):
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--hosts", type=int, default=2, help="hosts (default 2)")
    flags.add_argument("--ranks-per-host", type=int, default=1, help="ranks of each host (default 1)")
    flags.add_argument("--rate", default="1gbit", help="of each host's link, each way, as tc writes it (default 1gbit)")
    flags.add_argument("--rounds", type=int, default=3, help="jobs of each plan (default 3)")
    flags.add_argument("--most", type=int, default=9,
                       help="jobs at most of a plan that may be the best, and of the pick (default 9)")
    flags.add_argument("--close", type=float, default=1.1,
                       help="those within so many times the best measured so far may be the best (default 1.1)")
    flags.add_argument("--most-closest", type=int, metavar="MOST",
                       help="jobs at most of the closest, and of the pick if there are any (default: 3 more than --most)")
    flags.add_argument("--closest", type=float, default=1.06,
                       help="those within so many times the best, of as many jobs, are the closest (default 1.06)")
    flags.add_argument("--repeat", type=int, default=5, help="runs of each job (default 5)")
    flags.add_argument("--sizes", choices=("usual", "tiny"), default="usual", help="tiny: a test of this script")
    flags.add_argument("--cases", type=numbers, help="their numbers from 0 on, as in 0,3..5 (default all)")
    flags.add_argument("--retry", type=int, default=1,
                       help="measure a case again, so often at most, if the machine changed its speed meanwhile (default 1)")
    flags.add_argument("--within", type=float, default=1.3,
                       help="measure plans predicted within so many times the best, and each strategy's best (default 1.3)")
    flags.add_argument("--others", type=float, default=0.15,
                       help="wait, and measure again, up to 3 times, while other programs use more of the cores (default 0.15)")
    flags.add_argument("--limit", type=float, default=120.0, help="longest job in seconds (default 120)")
    flags.add_argument("--machine", help="predict for this machine (as plait plan takes it) instead of a calibrated one")
    for name, value in (("fold-rate", 40e9), ("bandwidth", 100e6), ("latency", 300e-6)):
        flags.add_argument(f"--{name}", type=float, default=value,
                           help=f"of a machine for programs that cannot calibrate (default {value:g})")
    flags.add_argument("--plait", type=pathlib.Path, default=TOP / "build/bin/plait", help="the program")
    flags.add_argument("--out", type=pathlib.Path, default=TOP / "bench/results/truth", help="the folder to write")
    flags.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = flags.parse_args(words)
    asked.most_closest = asked.most_closest or asked.most + 3
    # The hosts' namespaces share the file system, but not necessarily the folder.
    asked.plait, asked.out = asked.plait.resolve(), asked.out.resolve()
    if not asked.plait.exists():
        flags.error(f"--plait {asked.plait}: there is no such program; build it first")
    return asked


def main():
    words = sys.argv[1:]
    asked = parse(words)
    if not asked.inside:
        sys.exit(on_hosts(words, asked))
    try:
        sys.exit(inside(asked))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        sys.exit(f"truth.py: {error}")


if __name__ == "__main__":
    main()
