"""The oracle against numpy in float64, from its own formulas: oracle_check.py TENSOR_TOOL INPUT.

INPUT is the committed file; the same values cast to F16 and F32 are checked too, as is a case with more keys
than queries and values of another width.
"""

import math
import subprocess
import sys
import tempfile

import numpy
import safetensors
from safetensors.numpy import load_file, save_file

NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def bf16_to_float(bits):
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)


def load_bf16(path):
    with open(path, "rb") as file:
        return {
            name: bf16_to_float(numpy.frombuffer(bytes(t["data"]), dtype=numpy.uint16)).reshape(t["shape"])
            for name, t in safetensors.deserialize(file.read())
        }


def attention(q, k, v, scale):
    """Causal (bottom-right aligned) attention in float64: out [B, Nq, Hq, Dv], lse [B, Hq, Nq]."""
    q, k, v = (x.astype(numpy.float64).transpose(0, 2, 1, 3) for x in (q, k, v))  # [B, H, N, D]
    group = q.shape[1] // k.shape[1]
    k, v = numpy.repeat(k, group, axis=1), numpy.repeat(v, group, axis=1)
    scores = scale * (q @ k.transpose(0, 1, 3, 2))
    rows, keys = numpy.arange(q.shape[2])[:, None], numpy.arange(k.shape[2])[None, :]
    scores = numpy.where(keys - rows <= k.shape[2] - q.shape[2], scores, -numpy.inf)
    lse = numpy.logaddexp.reduce(scores, axis=-1)
    with numpy.errstate(invalid="ignore"):
        weights = numpy.where(numpy.isneginf(scores), 0.0, numpy.exp(scores - lse[..., None]))
    return (weights @ v).transpose(0, 2, 1, 3), lse


def run_tool(tool, directory, tensors, scale):
    save_file({name: numpy.ascontiguousarray(x) for name, x in tensors.items()}, f"{directory}/in")
    subprocess.run([tool, "oracle", f"{directory}/in", f"{directory}/out", repr(scale)], check=True)
    return load_file(f"{directory}/out")


def check(tool, directory, what, tensors, scale, plain_bound):
    found = run_tool(tool, directory, tensors, scale)
    out, lse = attention(tensors["q"], tensors["k"], tensors["v"], scale)
    finite = numpy.isfinite(lse)
    assert (found["lse"][~finite] == lse[~finite]).all()
    assert (found["out"].transpose(0, 2, 1, 3)[~finite] == 0).all()
    out_error = numpy.abs(found["out"] - out).max()
    lse_error = numpy.abs(found["lse"][finite] - lse[finite]).max()
    plain_error = numpy.abs(found["plain_out"] - out).max()
    print(f"{what}: oracle against numpy: out {out_error:.1e}, lse {lse_error:.1e}; plain: {plain_error:.1e}")
    assert out_error < 1e-11 and lse_error < 1e-11  # values up to 10, logits up to 35, sums over 2,048 keys
    assert plain_error < plain_bound, "a plain implementation of the type is nearer than that"


def main():
    tool, path = sys.argv[1:]
    llama = load_bf16(path)
    part = {"q": llama["q"][:, :512], "k": llama["k"][:, :512], "v": llama["v"][:, :512]}
    scale = 1 / math.sqrt(64)
    with tempfile.TemporaryDirectory() as directory:
        check(tool, directory, "f32", part, scale, 1e-5)
        check(tool, directory, "f16", {n: x.astype(numpy.float16) for n, x in part.items()}, scale, 0.03)
        cross = {"q": part["q"][:, :50], "k": part["k"][:, :333], "v": part["v"][:, :333, :, :40]}
        check(tool, directory, "f32, more keys", cross, 0.07, 1e-5)
        empty_rows = {"q": part["q"][:, :50], "k": part["k"][:, :20], "v": part["v"][:, :20]}
        check(tool, directory, "f32, rows without keys", empty_rows, scale, 1e-5)

        subprocess.run([tool, "oracle", path, f"{directory}/out", repr(scale)], check=True)
        found = load_file(f"{directory}/out")
        out, lse = attention(llama["q"], llama["k"], llama["v"], scale)
        errors = [numpy.abs(found["out"] - out).max(), numpy.abs(found["lse"] - lse).max()]
        plain = numpy.abs(found["plain_out"] - out).max()
        print(f"bf16, {path}: out {errors[0]:.1e}, lse {errors[1]:.1e}; plain: {plain:.1e}")
        assert max(errors) < 1e-11
        assert 1e-3 < plain < 0.2, "bf16 keeps 8 bits of values up to 10 and logits up to 35"


main()
