#!/usr/bin/env python3
"""Scaling over the GPUs of this host, one rank a GPU: `plait study` beside PyTorch's context_parallel.

    python3 bench/gpu/scaling.py --ranks 2 --out DIR      writes DIR/scaling.md, DIR/scaling.json and a timeline picture

Each problem is measured on one GPU too; efficiency is against that, the single-GPU kernel in the same job.
"""
import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# A problem, the runs, the strategies that are worth its time (all unless said), and the efficiency asked on 8 GPUs.
PROBLEMS = [
    {"tokens": 65536, "heads": "64:8", "mask": "causal", "repeat": 7, "bar": 0.93},
    {"tokens": 65536, "heads": "64:8", "mask": "full", "repeat": 3},
    {"tokens": 65536, "heads": "64:8", "mask": "documents", "repeat": 5},
    {"tokens": 65536, "heads": "1:1", "mask": "causal", "repeat": 5},
    {"tokens": 262144, "heads": "1:1", "mask": "causal", "repeat": 5},
    {"tokens": 262144, "heads": "64:8", "mask": "causal", "repeat": 2, "strategies": "ring,allgather,ulysses"},
    {"tokens": 1048576, "heads": "1:1", "mask": "causal", "repeat": 2},
    {"tokens": 1048576, "heads": "64:8", "mask": "causal", "repeat": 1, "strategies": "allgather", "bar": 0.97},
]
# Packed documents: shares of the sequence, from long to short.
SHARES = (0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02)


def mask_flags(problem):
    if problem["mask"] == "full":
        return []
    if problem["mask"] == "causal":
        return ["--causal"]
    lengths = [int(share * problem["tokens"]) for share in SHARES]
    return ["--causal", "--documents", ",".join(map(str, [*lengths, problem["tokens"] - sum(lengths)]))]


def environment():
    return os.environ | {"NCCL_NVLS_ENABLE": "0", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def everything(ranks):
    """All strategies; on one host a ring in two levels needs to be told which ranks to take for a node's."""
    names = "ring,allgather,passq,mesh,ulysses,tree"
    return f"{names},hierarchical:2x{ranks // 2}" if ranks >= 4 and ranks % 2 == 0 else names


def study(plait, problem, ranks, machine, folder, seconds, strategies, transport):
    """The study's rows, or a list with one row that says what went wrong. `strategies`: none, or those wanted."""
    path = folder / "study.json"
    path.unlink(missing_ok=True)
    command = ["mpirun", "-np", str(ranks), "--bind-to", "none", plait, "study", "--tokens", str(problem["tokens"]),
               "--heads", problem["heads"], "--dim", "128", "--dtype", "bf16", *mask_flags(problem),
               "--ranks", f"1,{ranks}", "--machine", machine, "--device", "cuda", "--transport", transport,
               "--repeat", str(problem["repeat"]), "--json", str(path)]
    command += ["--strategies", strategies or problem.get("strategies", everything(ranks))]
    if problem is PROBLEMS[0]:
        command += ["--plots", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=seconds)
    except subprocess.TimeoutExpired:
        return [{"refused": f"took more than {seconds} s"}]
    if done.returncode != 0:
        return [{"refused": (done.stderr or done.stdout).strip()[-300:]}]
    found = json.loads(path.read_text())
    return found["rows"] if isinstance(found, dict) else found


def peer(problem, ranks, seconds):
    """{method: {"seconds": …} or {"error": …}} of PyTorch's context_parallel."""
    if problem["mask"] == "documents":
        return {}
    command = ["torchrun", "--nproc-per-node", str(ranks), str(HERE / "context_parallel.py"), json.dumps(problem)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=seconds)
        return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    except subprocess.TimeoutExpired:
        return {"context_parallel": {"error": f"took more than {seconds} s"}}
    except (IndexError, json.JSONDecodeError):
        return {"context_parallel": {"error": done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else "no reply"}}


def number(row, key, form="{:.3f}"):
    value = row.get(key)
    return "–" if value in (None, "") else form.format(value)


def table(problem, rows, peers, ranks):
    flops = 4 * 128 * int(problem["heads"].split(":")[0]) * problem["tokens"] ** 2 / (2 if problem["mask"] == "causal" else 1)
    lines = ["", f"## {problem['heads']} heads, {problem['tokens']} tokens, {problem['mask']}", "",
             "| plan | ranks | ms | TFLOP/s per GPU | efficiency | exposed share | MiB sent, most | predicted ms | |",
             "|---|---|---|---|---|---|---|---|---|"]
    alone = min((row for row in rows if not row.get("refused") and row["ranks"] == 1), key=lambda row: row["seconds"], default=None)
    for row in rows:
        if row.get("ranks") == 1 and row is not alone:
            continue  # on one rank all plans are the same folds
        if row.get("refused"):
            lines.append(f"| {row.get('strategy', '–')} | {row.get('ranks', ranks)} | refused: {row['refused'][:200]} | | | | | | |")
            continue
        verdict = ""
        if "bar" in problem and row["ranks"] == ranks:
            verdict = f"{'at least' if row['efficiency'] >= problem['bar'] else 'below'} {problem['bar']}"
        lines.append(f"| {row['plan']} | {row['ranks']} | {row['seconds'] * 1e3:.3f} | {number(row, 'tflops_per_rank', '{:.1f}')} "
                     f"| {number(row, 'efficiency')} | {number(row, 'exposed_share')} | {row['bytes_max'] / 2**20:.1f} "
                     f"| {row['predicted_seconds'] * 1e3:.3f} | {verdict} |")
    best = min((row["seconds"] for row in rows if not row.get("refused") and row["ranks"] == ranks), default=None)
    for method, reply in peers.items():
        if "error" in reply:
            lines.append(f"| PyTorch {method} | {ranks} | not measured: {reply['error'][:200]} | | | | | | |")
            continue
        faster = "" if best is None else f"our best is {reply['seconds'] / best:.2f} × as fast"
        lines.append(f"| PyTorch {method} | {ranks} | {reply['seconds'] * 1e3:.3f} "
                     f"| {flops / reply['seconds'] / ranks * 1e-12:.1f} | | | | | {faster} |")
    return lines


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--ranks", type=int, required=True)
    flags.add_argument("--out", type=pathlib.Path, default=HERE.parent / "results")
    flags.add_argument("--plait", default=str(HERE.parents[1] / "build-gpu/bin/plait"))
    flags.add_argument("--machine", default="h100")
    flags.add_argument("--commit", default="unknown")
    flags.add_argument("--problems", default=",".join(map(str, range(len(PROBLEMS)))), help="which of the list (default all)")
    flags.add_argument("--transport", default="peer", choices=("peer", "nccl", "mpi"), help="as plait takes it (default peer)")
    flags.add_argument("--strategies", help="as plait study takes them, instead of each problem's own")
    flags.add_argument("--seconds", type=int, default=120, help="longest time of one problem and program")
    given = flags.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    gpus = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True,
                          text=True, check=True).stdout.splitlines()
    lines = ["# Scaling over the GPUs of one host", "", f"{datetime.date.today()}, commit {given.commit}, {len(gpus)} × {gpus[0]} "
             f"driver, {given.ranks} ranks, one a GPU, transport {given.transport}. bf16, D 128. Medians; efficiency: one GPU's time over ranks × time."]
    raw = []
    for index in map(int, given.problems.split(",")):
        problem = PROBLEMS[index]
        rows = study(given.plait, problem, given.ranks, given.machine, given.out, given.seconds, given.strategies, given.transport)
        peers = peer(problem, given.ranks, given.seconds)
        raw.append({"problem": problem, "rows": rows, "peers": peers})
        new = table(problem, rows, peers, given.ranks)
        print("\n".join(new), flush=True)
        lines += new
        (given.out / "scaling.md").write_text("\n".join(lines) + "\n")
        (given.out / "scaling.json").write_text(json.dumps(raw, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
