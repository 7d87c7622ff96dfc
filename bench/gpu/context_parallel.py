#!/usr/bin/env python3
"""One problem through PyTorch's context_parallel: started by torchrun, a rank a GPU; the problem is a JSON object.

Rank 0 prints a JSON line: for each way of rotating keys and values, seconds (median; the slowest rank's) or an error.
"""
import json
import os
import statistics
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.distributed.tensor.experimental._attention import set_rotate_method
from torch.nn.attention import SDPBackend, sdpa_kernel


def timed(run, repeat):
    run()
    seconds = []
    for _ in range(repeat):
        dist.barrier()
        torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        slowest = torch.tensor(begin.elapsed_time(end) * 1e-3, device="cuda")
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        seconds.append(slowest.item())
    return statistics.median(seconds)


def measure(problem, mesh, method):
    heads, kv_heads = map(int, problem["heads"].split(":"))
    shape = lambda count: (1, count, problem["tokens"], 128)
    q, k, v = (torch.randn(shape(count), device="cuda", dtype=torch.bfloat16) for count in (heads, kv_heads, kv_heads))
    # Its ring takes as many key/value heads as query heads.
    k, v = (tensor.repeat_interleave(heads // kv_heads, 1) for tensor in (k, v))
    set_rotate_method(method)
    with torch.inference_mode(False), torch.no_grad(), sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]):
        with context_parallel(mesh, buffers=[q, k, v], buffer_seq_dims=[2, 2, 2]):
            run = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=problem["mask"] == "causal")
            return timed(run, problem["repeat"])


def main():
    problem = json.loads(sys.argv[1])
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    mesh = init_device_mesh("cuda", (dist.get_world_size(),))
    reply = {}
    for method in ("allgather", "alltoall"):
        try:
            reply[f"context_parallel, {method}"] = {"seconds": measure(problem, mesh, method)}
        except Exception as error:  # what the peer cannot do is a row of the table
            reply[f"context_parallel, {method}"] = {"error": f"{type(error).__name__}: {error}"[:300]}
        torch.cuda.empty_cache()
    if dist.get_rank() == 0:
        print(json.dumps(reply), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
