#!/usr/bin/env python3
"""Tables of how attention scales, as Markdown: bytes per rank as plans count them, and what the studies in a folder say of
efficiency, crossovers and limits. bench/study.sh makes the studies and calls this.

    python3 bench/scaling.py --plait build/bin/plait --folder bench/results/scaling
"""

import argparse
import csv
import json
import math
import pathlib
import subprocess

TOKENS, DIM, ELEMENT, STATE_ELEMENT = 1 << 20, 128, 2, 4
PARTS = {"imbalance": "uneven or small folds", "merge": "merges", "node": "links within nodes",
         "network": "links between nodes", "latency": "latency"}


def candidates(plait, heads, kv_heads, ranks, strategy):
    """What the planner weighs: names and bytes of the rank that sends most, full mask, contiguous."""
    words = ["plan", "--tokens", TOKENS, "--heads", heads, "--kv-heads", kv_heads, "--dim", DIM, "--dtype", "bf16",
             "--ranks", ranks, "--strategy", strategy, "--layout", "contiguous", "--machine", "h200", "--weigh",
             "all", "--json", "-"]
    done = subprocess.run([str(plait), *map(str, words)], capture_output=True, text=True, check=True)
    return [found for found in json.loads(done.stdout)["candidates"] if not found["refused"]]


def gib(count):
    return f"{count / (1 << 30):.3f} GiB" if count >= 1 << 28 else f"{count / (1 << 20):.1f} MiB"


def time(seconds):
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def bytes_table(plait, heads, kv_heads, strategies):
    """One row per rank count: ring, the lightest plan of the strategies, their ratio, and DESIGN §4's optimum."""
    x = heads * (ELEMENT + STATE_ELEMENT)
    y = 2 * kv_heads * ELEMENT
    lines = ["| ranks | `ring` | lightest | bytes | ring / lightest | mesh alone: 2·N·D·√(x·y/P) |",
             "|---|---|---|---|---|---|"]
    for ranks in (8, 64, 256, 1024):
        ring = candidates(plait, heads, kv_heads, ranks, "ring")[0]["bytes_max"]
        found = [one for strategy in strategies for one in candidates(plait, heads, kv_heads, ranks, strategy)]
        best = min(found, key=lambda one: one["bytes_max"])
        bound = 2 * TOKENS * DIM * math.sqrt(x * y / ranks)
        lines.append(f"| {ranks} | {gib(ring)} | `{best['strategy']}` | {gib(best['bytes_max'])} | "
                     f"{ring / best['bytes_max']:.2f} | {gib(bound)} |")
    return lines


def rows_of(path):
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if not row["refused"]]


def losses(row):
    """Where 1 − efficiency goes: shares of the time on the chain of steps that ends last."""
    found = {part: float(row[f"predicted_{part}_share"]) for part in ("merge", "node", "network", "latency")}
    return {"imbalance": max(0.0, float(row["predicted_fold_share"]) - float(row["efficiency"])), **found}


def limit(row):
    found = losses(row)
    part = max(found, key=found.get)
    return f"{PARTS[part]} {found[part]:.0%}" if found[part] >= 0.01 else "nothing above 1%"


def study_tables(rows):
    ranks = sorted({int(row["ranks"]) for row in rows})
    names = list(dict.fromkeys(row["strategy"] for row in rows))
    at = {(row["strategy"], int(row["ranks"])): row for row in rows}
    lines = ["Efficiency (time of one rank / (ranks × time)):", "",
             "| strategy | " + " | ".join(map(str, ranks)) + " |", "|---" * (len(ranks) + 1) + "|"]
    for name in names:
        cells = [f"{float(at[name, p]['efficiency']):.2f}" if (name, p) in at else "–" for p in ranks]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    best = {p: min((row for row in rows if int(row["ranks"]) == p), key=lambda row: float(row["seconds"])) for p in ranks}
    lines.append("| best | " + " | ".join(f"{float(best[p]['efficiency']):.2f}" for p in ranks) + " |")
    lines += ["", "| ranks | fastest plan | time | its bytes per rank | ring's time | ring / fastest |", "|---|---|---|---|---|---|"]
    for p in ranks:
        ring = float(at["ring", p]["seconds"])
        lines.append(f"| {p} | `{best[p]['plan']}` | {time(float(best[p]['seconds']))} | "
                     f"{gib(int(best[p]['bytes_max']))} | {time(ring)} | {ring / float(best[p]['seconds']):.2f} |")
    some = [p for p in ranks if p in (8, 64, 256, 512, 1024, 4096)]
    lines += ["", "What limits each: the largest part of its time (on the chain of steps that ends last) beyond what one rank's",
              "time over the ranks would be.", "",
              "| strategy | " + " | ".join(map(str, some)) + " |", "|---" * (len(some) + 1) + "|"]
    for name in names:
        cells = [limit(at[name, p]) if (name, p) in at else "–" for p in some]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    lines += ["", *crossovers(names, ranks, at)]
    return lines


def crossovers(names, ranks, at):
    """From how many ranks on each strategy beats the ring, and stays ahead."""
    lines = []
    for name in names:
        if name == "ring":
            continue
        known = [p for p in ranks if (name, p) in at]
        ahead = [p for p in known if float(at[name, p]["seconds"]) < 0.995 * float(at["ring", p]["seconds"])]
        first = next((p for p in known if all(later in ahead for later in known if later >= p)), None)
        words = f"is ahead of the ring from {first} ranks on" if first else "is not ahead of the ring at the end"
        only = [p for p in ahead if first is None or p < first]
        if only:
            words += f" (and at {', '.join(map(str, only))})"
        lines.append(f"- `{name}` {words}.")
    return lines


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--plait", type=pathlib.Path, default="build/bin/plait")
    flags.add_argument("--folder", type=pathlib.Path, default="bench/results/scaling")
    asked = flags.parse_args()
    print("\n".join([
        "# Scaling, simulated", "",
        "Made by `bash bench/study.sh`. Nothing here was measured on such a cluster: plans are played through, round by",
        "round, on the machine model `h200` (`plait plan --machine h200`; its sources: `runtime/machine.cpp`).", "",
        "## Bytes sent by each rank, 1M tokens, D 128, bf16, full mask", "", "One head:", "",
        *bytes_table(asked.plait, 1, 1, ["mesh"]), "", "64 query over 8 key/value heads, heads spread over ranks beside a mesh:", "",
        *bytes_table(asked.plait, 64, 8, ["ulysses"])]))
    for tokens in ("1M", "16M"):
        rows = rows_of(asked.folder / f"prefill-{tokens}.csv")
        print("\n".join(["", f"## Causal prefill of {tokens} tokens, 64:8 heads of 128, bf16, zigzag layout", "", *study_tables(rows)]))


if __name__ == "__main__":
    main()
