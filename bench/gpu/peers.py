#!/usr/bin/env python3
"""Answers the benchmark cases of fold_bench --serve through PyTorch: a JSON case per line in, a JSON line out.

`peer` of a case: cudnn or flash (scaled_dot_product_attention with that backend pinned), unfused (bmm, softmax,
bmm; scores in device memory), gemm (tokens cubed), copy (of `bytes`).
"""
import json
import statistics
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def timed(work, repeat):
    """Seconds of each repeat, after at least three runs and 0.2 s that warm the GPU up, as ours does."""
    begin, runs = time.monotonic(), 0
    while runs < 3 or time.monotonic() - begin < 0.2:
        work()
        torch.cuda.synchronize()
        runs += 1
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeat)]
    torch.cuda.synchronize()
    for begin, end in events:
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) * 1e-3 for begin, end in events]


def tensors(case):
    """q, k, v as [batch, heads, tokens, dim], stored [batch, tokens, heads, dim] as ours are."""
    def one(heads, dim):
        shape = (case.get("batch", 1), case["tokens"], heads, dim)
        return torch.randn(shape, device="cuda", dtype=DTYPES[case.get("dtype", "bf16")]).transpose(1, 2)
    heads, dim = case.get("heads", 16), case.get("dim", 128)
    kv_heads = case.get("kv_heads", heads)
    return one(heads, dim), one(kv_heads, dim), one(kv_heads, case.get("value_dim", dim))


def attention_flops(case):
    tokens, dim = case["tokens"], case.get("dim", 128)
    pairs = tokens * (tokens + 1) // 2 if case.get("mask") == "causal" else tokens * tokens
    return 2 * pairs * case.get("batch", 1) * case.get("heads", 16) * (dim + case.get("value_dim", dim))


def attention(case):
    if case.get("mask", "full") not in ("full", "causal"):
        raise ValueError(f"mask {case['mask']}: peers run full and causal")
    q, k, v = tensors(case)
    causal = case.get("mask") == "causal"
    grouped = q.shape[1] != k.shape[1]
    with sdpa_kernel(BACKENDS[case["peer"]]):
        run = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
        return timed(run, case.get("repeat", 10)), attention_flops(case), {}


def unfused(case):
    q, k, v = (tensor.contiguous().flatten(0, 1) for tensor in tensors(case))
    hidden = None
    if case.get("mask") == "causal":
        hidden = torch.ones(case["tokens"], case["tokens"], device="cuda", dtype=torch.bool).triu(1)
    scale = q.shape[-1] ** -0.5

    def run():
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
        if hidden is not None:
            scores.masked_fill_(hidden, float("-inf"))
        torch.bmm(torch.softmax(scores, -1), v)

    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seconds = timed(run, case.get("repeat", 10))
    return seconds, attention_flops(case), {"extra_bytes": torch.cuda.max_memory_allocated() - held}


def gemm(case):
    side = case["tokens"]
    a, b = (torch.randn(side, side, device="cuda", dtype=DTYPES[case.get("dtype", "bf16")]) for _ in range(2))
    return timed(lambda: a @ b, case.get("repeat", 10)), 2 * side**3, {}


def copy(case):
    source = torch.empty(case["bytes"], device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), case.get("repeat", 10))
    return seconds, 0, {"gbytes_per_second": 2 * case["bytes"] / statistics.median(seconds) * 1e-9}


def answer(case):
    work = {"cudnn": attention, "flash": attention, "unfused": unfused, "gemm": gemm, "copy": copy}[case["peer"]]
    with torch.inference_mode():
        seconds, flops, more = work(case)
    median = statistics.median(seconds)
    return {"seconds": seconds, "median_ms": median * 1e3, "min_ms": min(seconds) * 1e3, "flops": flops,
            "tflops": flops / median * 1e-12, **more}


def main():
    failed = 0
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # whatever a peer cannot do is a row of the table, not the end of the run
            reply, failed = {"error": f"{type(error).__name__}: {error}"}, 1
        torch.cuda.empty_cache()
        print(json.dumps(reply), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
