"""plait attend, plan and generate, run as users run them: cli_attend_test.py PLAIT MPIEXEC INPUT.

Outputs are compared with numpy in float64; nothing here comes from the program under test.
"""

import functools
import json
import os
import sys
import tempfile

import cli
import numpy
import safetensors

INPUT = sys.argv[3]
run = functools.partial(cli.run, timeout=100)


def load(path):
    """Tensors of a file, in float64."""
    with open(path, "rb") as file:
        tensors = dict(safetensors.deserialize(file.read()))
    loaded = {}
    for name, tensor in tensors.items():
        raw = bytes(tensor["data"])
        if tensor["dtype"] == "BF16":
            values = (numpy.frombuffer(raw, numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)
        else:
            values = numpy.frombuffer(raw, {"F32": numpy.float32, "F16": numpy.float16}[tensor["dtype"]])
        loaded[name] = values.reshape(tensor["shape"]).astype(numpy.float64)
    return loaded


def causal_attention(tensors):
    q, k, v = (tensors[name].transpose(0, 2, 1, 3) for name in "qkv")
    group = q.shape[1] // k.shape[1]
    k, v = numpy.repeat(k, group, axis=1), numpy.repeat(v, group, axis=1)
    scores = q @ k.transpose(0, 1, 3, 2) / numpy.sqrt(q.shape[3])
    later = numpy.triu(numpy.ones(scores.shape[-2:], bool), 1)
    scores[..., later] = -numpy.inf
    lse = numpy.logaddexp.reduce(scores, axis=-1)
    return (numpy.exp(scores - lse[..., None]) @ v).transpose(0, 2, 1, 3), lse


def check_trace(path, ranks):
    with open(path) as file:
        events = json.load(file)["traceEvents"]
    rows = {}
    for event in events:
        if event["ph"] == "X":
            start = round(event["ts"] * 1000)
            rows.setdefault((event["pid"], event["tid"]), []).append((start, start + round(event["dur"] * 1000)))
    assert {pid for pid, _ in rows} == set(range(ranks))
    for spans in rows.values():
        spans.sort()
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:])), path


def check_attend(directory):
    out, lse = causal_attention(load(INPUT))
    keys = {"strategy", "layout", "device", "kernels", "transport", "ranks", "shape", "seconds", "compute_seconds",
            "tflops", "exposed_comm_seconds", "bytes", "slots_bytes", "check"}  # fmt: skip
    for ranks in (1, 2, 4):
        for strategy in ("ring", "allgather", "passq"):
            output, trace = f"{directory}/out", f"{directory}/trace"
            words = ["attend", "--input", INPUT, "--causal", "--strategy", strategy, "--check", "64",
                     "--output", output, "--trace", trace, "--json", "-"]  # fmt: skip
            report = json.loads(run(words, ranks).stdout)  # nothing but the JSON on stdout
            assert set(report) == keys, set(report) ^ keys
            assert report["strategy"].split(":")[0] == strategy and report["ranks"] == ranks
            assert report["check"]["passed"] and report["check"]["rows"] == 64
            assert report["bytes"]["moved"] == report["bytes"]["planned"] and len(report["bytes"]["moved"]) == ranks
            assert (sum(report["bytes"]["moved"]) > 0) == (ranks > 1)
            check_trace(trace, ranks)
            found = load(output)
            # bf16 keeps 8 bits: half a unit in the last place of the largest output, twice for two roundings.
            bound = 2 * 2.0**-8 * numpy.abs(out).max()
            error = numpy.abs(found["out"] - out).max()
            lse_error = numpy.abs(found["lse"] - lse).max()
            print(f"{strategy} on {ranks}: out {error:.1e} (bound {bound:.1e}), lse {lse_error:.1e}")
            assert error < bound and lse_error < 1e-4
    assert not [name for name in os.listdir(directory) if name.endswith(".part")]


def check_generate(directory):
    words = ["generate", "--tokens", "1000", "--heads", "4", "--kv-heads", "2", "--dim", "24", "--seed", "3"]
    contents = []
    for ranks in (None, 1, 3):
        run([*words, "--output", f"{directory}/random"], ranks)
        with open(f"{directory}/random", "rb") as file:
            contents.append(file.read())
    assert contents[0] == contents[1] == contents[2]
    tensors = load(f"{directory}/random")
    assert tensors["q"].shape == (1, 1000, 4, 24) and tensors["v"].shape == (1, 1000, 2, 24)
    assert abs(tensors["q"].mean()) < 0.02 and abs(tensors["q"].std() - 1) < 0.02
    assert abs((tensors["k"] * tensors["v"]).mean()) < 0.03  # tensors differ
    run(["attend", "--input", f"{directory}/random", "--window", "100,20", "--check"])


with tempfile.TemporaryDirectory() as scratch:
    check_generate(scratch)
    check_attend(scratch)
