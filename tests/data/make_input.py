"""Writes llama_2048.safetensors, the input of the quickstart: q, k and v of one Llama-like attention layer.

    python3 make_input.py [FILE]      needs numpy and safetensors

bf16; q [1, 2048, 8, 64], k and v [1, 2048, 2, 64]: 8 query heads over 2 key/value heads, 3 MiB. The file is
written by the Python package `safetensors`, so that reading it is no conversation of Plait with itself.

The values are drawn, not taken from a model's weights, but they have the features of trained layers that make
attention numerically hard, which independent normal values lack (their logits are all small, and each row's
output is a flat mean):

- Rotary position embedding (base 500,000, halves rotated, as in Llama 3) on q and k: distance matters.
- Smooth content: a token's features follow an autoregressive walk, so that neighbours attend to each other
  and rows have a few large weights, not 2,048 equal ones.
- A bias per head in q and k: logits are not centred on zero.
- Outlier channels: a few channels of k (paired by the rotation, at its slow end, as observed in Llama's keys)
  are ten times as large as the rest. Their products with q dominate the logits' magnitude, and so their rounding.
- An attention sink: every query points partly to the first token, whose value is small ("no operation").
- Value outliers: a few tokens whose values are three times the usual.
"""

import math
import pathlib
import sys

import numpy
import safetensors

TOKENS, Q_HEADS, KV_HEADS, DIM = 2048, 8, 2, 64
SEED = 20240229
ROPE_BASE = 500_000.0
OUTLIER_CHANNELS = (26, 29, 26 + DIM // 2)  # slow rotations: their sign survives over the sequence
OUTLIER_SCALE = 10.0
SINK_LOGIT = 9.0  # added to the sink's logit, before the softmax


def rotate(x):
    """Rotary position embedding of [tokens, heads, DIM]: channel i turns with channel i + DIM/2."""
    frequency = ROPE_BASE ** (-numpy.arange(DIM // 2) / (DIM // 2))
    angle = numpy.arange(x.shape[0])[:, None, None] * frequency
    first, second = x[..., : DIM // 2], x[..., DIM // 2 :]
    cos, sin = numpy.cos(angle), numpy.sin(angle)
    return numpy.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def walk(random, heads, memory):
    """Features [TOKENS, heads, DIM] of unit variance that forget over 1 / (1 - memory) tokens."""
    steps = random.standard_normal((TOKENS, heads, DIM))
    features = numpy.empty_like(steps)
    features[0] = steps[0]
    for token in range(1, TOKENS):
        features[token] = memory * features[token - 1] + math.sqrt(1 - memory**2) * steps[token]
    return features


def make_tensors():
    random = numpy.random.default_rng(SEED)
    k = walk(random, KV_HEADS, 0.9) + 0.5 * random.standard_normal((KV_HEADS, DIM))
    k[..., OUTLIER_CHANNELS] *= OUTLIER_SCALE
    # A query looks for what its own token offers (times a gain of its head), among other things.
    gain = numpy.linspace(0.1, 0.5, Q_HEADS)[:, None]
    seen = numpy.repeat(k, Q_HEADS // KV_HEADS, axis=1)
    seen[..., OUTLIER_CHANNELS] /= OUTLIER_SCALE
    q = gain * seen + walk(random, Q_HEADS, 0.5) + 0.5 * random.standard_normal((Q_HEADS, DIM))
    q, k = rotate(q), rotate(k)

    # The sink: along the mean direction of each group's queries, as long as gives SINK_LOGIT on average.
    for head in range(KV_HEADS):
        group = slice(head * Q_HEADS // KV_HEADS, (head + 1) * Q_HEADS // KV_HEADS)
        mean = q[:, group].mean(axis=(0, 1))
        k[0, head] = mean * SINK_LOGIT * math.sqrt(DIM) / (mean @ mean)

    v = walk(random, KV_HEADS, 0.7)
    v[0] *= 0.02
    v[random.choice(TOKENS, 8, replace=False)] *= 3.0
    return {"q": q, "k": k, "v": v}


def to_bf16(x):
    """The upper halves of the fp32 bits, rounded to nearest even."""
    bits = numpy.ascontiguousarray(x, dtype=numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def main():
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).with_name(
        "llama_2048.safetensors")
    arrays = {name: to_bf16(tensor)[None] for name, tensor in make_tensors().items()}
    specs = {
        name: safetensors.TensorSpec(dtype="bfloat16", shape=array.shape, data_ptr=array.ctypes.data,
                                     data_len=array.nbytes)
        for name, array in arrays.items()
    }
    # One entry: the package writes several in no fixed order, and the file should come out the same.
    metadata = {
        "provenance": f"tests/data/make_input.py of Plait, seed {SEED}, by safetensors "
        f"{safetensors.__version__}: drawn, Llama-like (rotary embedding, outlier channels, attention sink), "
        "not a model's weights; Apache-2.0"
    }
    safetensors.serialize_file(specs, str(target), metadata=metadata)


if __name__ == "__main__":
    main()
