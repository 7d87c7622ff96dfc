#!/usr/bin/env python3
"""Measures folds on a GPU side by side with PyTorch's peers and writes a Markdown table and the raw rows.

Ours and the peer's take turns case by case, so that a change of the GPU's clock meets both alike.
"""
import argparse
import datetime
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TURNS, REPEATS = 3, 5


class Server:
    """A long-lived program that answers a case per line with a JSON line."""

    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, case):
        try:
            self.process.stdin.write(json.dumps(case) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": f"'{self.command}' ended with {self.process.wait()}"}

    def close(self):
        self.process.stdin.close()
        return self.process.wait(timeout=60)


def comparisons():
    """(title, case, peer, lowest ratio of rates ours / peer)."""
    for dim, heads, bar in ((128, 16, 1.00), (64, 32, 1.00), (256, 8, 0.95)):
        for tokens in (2048, 8192, 16384):
            for mask in ("full", "causal"):
                yield from pair(dim, heads, tokens, 16384 // tokens, mask, "bf16", bar)
    for tokens in (65536, 131072):
        for mask in ("full", "causal"):
            yield from pair(128, 8, tokens, 1, mask, "bf16", 1.05)
    for mask in ("full", "causal"):
        yield from pair(128, 16, 8192, 2, mask, "f16", 1.00)


def pair(dim, heads, tokens, batch, mask, dtype, bar):
    case = {"dtype": dtype, "dim": dim, "heads": heads, "batch": batch, "tokens": tokens, "mask": mask}
    yield f"{dtype} D {dim}, {heads} heads, N {tokens} × {batch}, {mask}", case, "cudnn", bar


def ours_alone():
    """(title, case, base case, figure, bar, whether the bar is a ceiling): our own cases against one another."""
    long = {"dtype": "bf16", "dim": 128, "heads": 8, "batch": 1, "tokens": 65536}
    hop = {"dtype": "bf16", "dim": 128, "heads": 16, "batch": 1, "tokens": 32768}
    for mask in ("full", "causal"):
        yield f"8 folds of N/8 keys, N 32k, {mask}: time", hop | {"mask": mask, "hops": 8}, hop | {"mask": mask}, \
            "median_ms", 1.05, True
    yield "ring of 4 ranks, N 64k, causal, zigzag: sum of fold times", \
        long | {"mask": "causal", "strategy": "ring", "ranks": 4}, long | {"mask": "causal"}, "median_ms", 1.08, True
    yield "documents, 64 in 64k, causal: kept FLOP/s", long | {"mask": "documents"}, long | {"mask": "causal"}, \
        "tflops", 0.85, False
    yield "blocks of 128, 10% kept, 64k: time", long | {"mask": "blocks"}, long | {"mask": "full"}, "median_ms", \
        0.13, True


def joined(replies):
    """The turns' replies as one: medians over all repeats."""
    for reply in replies:
        if "error" in reply:
            return reply
    one = dict(replies[0])
    one["seconds"] = [second for reply in replies for second in reply["seconds"]]
    median = statistics.median(one["seconds"])
    one["median_ms"], one["min_ms"] = median * 1e3, min(one["seconds"]) * 1e3
    one["tflops"] = one.get("flops", 0) / median * 1e-12
    if "bytes" in one:
        one["gbytes_per_second"] = one["bytes"] / median * 1e-9
    one["wrong_rows"] = sum(reply.get("wrong_rows", 0) for reply in replies)
    return one


def verdict(value, bar, ceiling=False):
    if value is None:
        return "not measured"
    return "pass" if (value <= bar if ceiling else value >= bar) else "FAIL"


class Report:
    def __init__(self):
        self.raw, self.lines, self.failed = [], [], 0

    def table(self, title, *columns):
        self.lines += ["", f"## {title}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]

    def row(self, *cells):
        self.lines.append("| " + " | ".join(cells) + " |")
        print(self.lines[-1], flush=True)
        self.failed += any(cell in ("FAIL", "not measured") for cell in cells)

    def note(self, title, case, program, reply):
        self.raw.append({"title": title, "case": case, "program": program, "reply": reply})


def alternate(report, title, sides):
    """Asks each (program, server, case) in turn, TURNS times; returns one reply per side. Our rows are checked before
    that: while the oracle computes, the GPU cools, and would be faster afterwards."""
    checked = [server.ask(case | {"repeat": 1}) if program == "ours" else {} for program, server, case in sides]
    replies = [[first] if "error" in first else [] for first in checked]
    for _ in range(TURNS):
        for (program, server, case), found in zip(sides, replies):
            if found and "error" in found[-1]:
                continue
            asked = case | {"checked_rows": 0, "repeat": REPEATS}
            found.append(server.ask(asked))
            report.note(title, asked, program, found[-1])
    return [joined(found) | {key: first[key] for key in ("wrong_rows", "checked_rows") if key in first}
            for first, found in zip(checked, replies)]


def cell(reply, key, form="{:.1f}"):
    return reply["error"].splitlines()[0][:60].replace("|", "/") if "error" in reply else form.format(reply[key])


def ratio(ours, other, key):
    return None if "error" in ours or "error" in other or not other[key] else ours[key] / other[key]


def shown(value):
    return "–" if value is None else f"{value:.3f}"


def wrong(reply):
    return "–" if "error" in reply else f"{reply['wrong_rows']} of {reply.get('checked_rows', 0)}"


def right_or(word, *replies):
    return "FAIL" if any(reply.get("wrong_rows", 0) for reply in replies) else word


def measure(report, ours, peers, chosen):
    if "peers" in chosen:
        report.table("Against cuDNN", "case", "kernel", "ours ms", "ours TFLOP/s", "cuDNN TFLOP/s", "flash TFLOP/s",
                     "ratio", "at least", "#wrong", "")

        def sides(case, peer):
            return [("ours", ours, case), (peer, peers, case | {"peer": peer}), ("flash", peers, case | {"peer": "flash"})]

        title, case, peer, _ = next(comparisons())
        alternate(Report(), title, sides(case, peer))  # for nothing: a GPU that was idle has power to spare for seconds
        for title, case, peer, bar in comparisons():
            mine, theirs, flash = alternate(report, title, sides(case, peer))
            value = ratio(mine, theirs, "tflops")
            report.row(title, mine.get("kernel", "–"), cell(mine, "median_ms", "{:.3f}"), cell(mine, "tflops"),
                       cell(theirs, "tflops"), cell(flash, "tflops"), shown(value), f"{bar:.2f}", wrong(mine),
                       right_or(verdict(value, bar), mine))
    if "carried" in chosen:
        report.table("Against our own dense fold", "case", "ms", "TFLOP/s", "base ms", "base TFLOP/s", "ratio", "bar",
                     "#wrong", "")
        for title, case, base, figure, bar, ceiling in ours_alone():
            mine, dense = alternate(report, title, [("ours", ours, case), ("ours", ours, base)])
            value = ratio(mine, dense, figure)
            report.row(title, cell(mine, "median_ms", "{:.3f}"), cell(mine, "tflops"), cell(dense, "median_ms", "{:.3f}"),
                       cell(dense, "tflops"), shown(value), f"{'≤' if ceiling else '≥'} {bar}", wrong(mine),
                       right_or(verdict(value, bar, ceiling), mine, dense))
    if "state" in chosen:
        report.table("Merge and finish against the device copy", "kernel", "GB/s", "copy GB/s", "ratio", "at least", "")
        for op in ("merge", "finish"):
            case = {"op": op, "tokens": 65536, "heads": 16}
            mine, copy = alternate(report, op, [("ours", ours, case), ("copy", peers, {"peer": "copy", "bytes": 1 << 30})])
            value = ratio(mine, copy, "gbytes_per_second")
            report.row(op, cell(mine, "gbytes_per_second"), cell(copy, "gbytes_per_second"), shown(value), "0.80",
                       verdict(value, 0.80))
    if "unfused" in chosen:
        measure_unfused(report, ours, peers)


def measure_unfused(report, ours, peers):
    report.table("Unfused attention (scores in device memory), D 128, 16 heads, batch 1, bf16", "N", "mask", "ours ms",
                 "unfused ms", "times as fast", "unfused MiB beyond inputs", "ours, with a state", "#wrong")
    for tokens in (1024, 2048, 4096, 8192, 16384):
        for mask in ("full", "causal"):
            case = {"tokens": tokens, "mask": mask}
            mine, plain = alternate(report, f"unfused {tokens} {mask}", [
                ("ours", ours, case), ("unfused", peers, case | {"peer": "unfused"})])
            value = ratio(plain, mine, "median_ms")
            extra = "–" if "error" in plain else f"{plain['extra_bytes'] / 2**20:.0f}"
            report.row(str(tokens), mask, cell(mine, "median_ms", "{:.3f}"), cell(plain, "median_ms", "{:.3f}"),
                       shown(value), extra, "–" if "error" in mine else f"{mine['extra_bytes'] / 2**20:.1f}", wrong(mine))
            report.failed += mine.get("wrong_rows", 0) > 0 or "error" in mine
    reply = joined([peers.ask({"peer": "gemm", "tokens": 8192})])
    report.note("gemm", {"tokens": 8192}, "gemm", reply)
    best = max((row["reply"].get("tflops", 0) for row in report.raw
                if row["program"] == "ours" and row["case"].get("dtype") == "bf16"), default=0)
    share = "" if "error" in reply else f"; our fastest bf16 fold of this run: {best:.1f}, {best / reply['tflops']:.1%} of it"
    report.lines += ["", f"8192³ bf16 GEMM: {cell(reply, 'tflops')} TFLOP/s{share}."]


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--ours", default=f"{HERE.parents[1]}/build-gpu/bin/fold_bench --device cuda --serve")
    flags.add_argument("--peers", default=f"{sys.executable} {HERE}/peers.py")
    flags.add_argument("--out", type=pathlib.Path, default=HERE.parent / "results/gpu.md")
    flags.add_argument("--only", default="peers,carried,state,unfused", help="parts to measure, of: %(default)s")
    flags.add_argument("--commit", default=os.environ.get("PLAIT_COMMIT"), help="where there is no git: the commit measured")
    given = flags.parse_args()
    report = Report()
    gpu = output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    report.lines = ["# Measured on a GPU", "", f"{datetime.date.today()}, commit "
                    f"{given.commit or output_of('git', 'rev-parse', '--short', 'HEAD')}, {gpu.splitlines()[0]} driver.",
                    f"Medians over {REPEATS} repeats in each of {TURNS} turns; ours and the peers take turns. FLOPs count kept pairs alone."]
    ours, peers = Server(given.ours), Server(given.peers)
    try:
        measure(report, ours, peers, given.only.split(","))
    finally:  # what was measured before a failure is kept
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text("\n".join(report.lines) + "\n")
        given.out.with_suffix(".json").write_text(json.dumps(report.raw, indent=1) + "\n")
        for server in (ours, peers):
            server.close()
    print(f"{given.out}: {report.failed} cells fall short")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
