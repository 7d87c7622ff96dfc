#!/usr/bin/env python3
"""Folds on the CPU beside PyTorch's scaled_dot_product_attention, in turn, on the same threads. Needs a Python with torch.

`bench/cpu_peer.py [--threads N] [--dtype bf16] [--repeat N] [--fold-bench PATH]` prints a table; the ratio is PyTorch's time over ours.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

CASES = [{"dtype": dtype, "dim": dim, "tokens": tokens, "mask": mask}
         for dtype in ("f32", "bf16") for dim in (128, 64) for tokens in (2048, 8192) for mask in ("full", "causal")]
HEADS = 2


def peer_seconds(torch, case):
    """Seconds of one call, after a warm-up; tensors lie as ours do, [batch, tokens, heads, dim]."""
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[case["dtype"]]
    q, k, v = (torch.randn(1, case["tokens"], HEADS, case["dim"]).to(dtype).transpose(1, 2) for _ in range(3))
    run = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=case["mask"] == "causal")
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def our_seconds(server, case):
    server.stdin.write(json.dumps({**case, "heads": HEADS, "repeat": 1, "checked_rows": 8}) + "\n")
    server.stdin.flush()
    reply = json.loads(server.stdout.readline())
    if "error" in reply or reply["wrong_rows"] > 0:
        sys.exit(f"{case}: {reply}")
    return reply["seconds"][0], reply["flops"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--dtype", choices=["f32", "bf16"], help="default: both")
    parser.add_argument("--fold-bench", default=pathlib.Path(__file__).resolve().parents[1] / "build/bin/fold_bench")
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("cpu_peer.py: this Python has no torch")
    torch.set_num_threads(options.threads)
    server = subprocess.Popen([options.fold_bench, "--serve", "--threads", str(options.threads)], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env={**os.environ, "OMP_NUM_THREADS": str(options.threads)})
    print(f"PyTorch {torch.__version__}, {options.threads} thread(s), {HEADS} heads, medians of {options.repeat} in turn\n")
    print("| type | D | N | mask | ours, GFLOP/s | PyTorch, GFLOP/s | ratio |\n|---|---|---|---|---|---|---|")
    ratios = []
    with torch.inference_mode():
        for case in CASES:
            if options.dtype not in (None, case["dtype"]):
                continue
            ours, theirs = [], []
            for _ in range(options.repeat):
                seconds, flops = our_seconds(server, case)
                ours.append(seconds)
                theirs.append(peer_seconds(torch, case))
            ratios.append(statistics.median(t / o for t, o in zip(theirs, ours)))
            rates = [flops / statistics.median(seconds) * 1e-9 for seconds in (ours, theirs)]
            print(f"| {case['dtype']} | {case['dim']} | {case['tokens']} | {case['mask']} | {rates[0]:.0f} | "
                  f"{rates[1]:.0f} | {ratios[-1]:.2f} |", flush=True)
    print(f"\nleast ratio {min(ratios):.2f}, geometric mean {math.prod(ratios) ** (1 / len(ratios)):.2f}")
    server.stdin.close()
    server.wait()


if __name__ == "__main__":
    main()
