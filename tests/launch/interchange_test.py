"""Tensor files both ways, the Python package `safetensors` and ours: interchange_test.py TENSOR_TOOL."""

import json
import random
import struct
import subprocess
import sys
import tempfile

import numpy
import safetensors

# Bits per element of every type that this package writes, and (F6) of those that it only reads.
WRITTEN = {
    "bool": 8, "uint8": 8, "int8": 8, "uint16": 16, "int16": 16, "uint32": 32, "int32": 32, "uint64": 64,
    "int64": 64, "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64, "complex64": 64,
    "float8_e4m3fn": 8, "float8_e5m2": 8, "float8_e8m0fnu": 8, "float8_e4m3fnuz": 8, "float8_e5m2fnuz": 8,
    "float4_e2m1fn_x2": 8,
}
READ_ONLY = {"F6_E2M3": 6, "F6_E3M2": 6}
SHAPES = [[], [0], [1], [7], [3, 0, 2], [2, 3], [4, 5, 6], [1, 9, 2, 8], [2, 11, 3, 5]]


def load(path):
    """{name: (dtype, shape, bytes)} as the package reads a file."""
    with open(path, "rb") as file:
        return {
            name: (tensor["dtype"], list(tensor["shape"]), bytes(tensor["data"]))
            for name, tensor in safetensors.deserialize(file.read())
        }


def listed(tool, path):
    """The same as our reader reads it."""
    text = subprocess.run([tool, "list", path], check=True, capture_output=True, text=True).stdout
    tensors = {}
    for line in text.splitlines():
        name, dtype, shape, data = line.split("|")
        sizes = [int(size) for size in shape.split(",") if size]
        tensors[bytes.fromhex(name).decode()] = (dtype, sizes, bytes.fromhex(data))
    return tensors


def write_python_file(path, draw, metadata):
    """A file by the package, with tensors of every type; random bytes, so NaN and Inf are among them."""
    buffers, specs = [], {}
    for dtype, bits in WRITTEN.items():
        for shape in SHAPES if draw.random() < 0.5 else draw.sample(SHAPES, 2):
            if "x2" in dtype and not shape:
                continue  # two elements to a byte need an axis to lie along
            count = int(numpy.prod(shape, dtype=numpy.int64))
            data = numpy.frombuffer(draw.randbytes(count * bits // 8) + b"\0", dtype=numpy.uint8)
            buffers.append(data)
            specs[f"{dtype} {shape} é\n\"{draw.randrange(10**9)}"] = safetensors.TensorSpec(
                dtype=dtype, shape=shape, data_ptr=data.ctypes.data, data_len=count * bits // 8)
    safetensors.serialize_file(specs, path, metadata=metadata)


def write_sub_byte_file(path):
    header, data = {}, b""
    for dtype, bits in READ_ONLY.items():
        data_bytes = 4 * 6 * bits // 8
        header[dtype] = {"dtype": dtype, "shape": [4, 6], "data_offsets": [len(data), len(data) + data_bytes]}
        data += bytes(range(data_bytes))
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def expect_equal(found, expected, what):
    if found != expected:
        sys.exit(f"{what}: the readings differ\n{found}\n{expected}")


def check_file(tool, directory, path, metadata):
    expected = load(path)
    assert expected, "an empty file proves nothing"
    expect_equal(listed(tool, path), expected, "our reader, the package's file")
    for ranks in (1, 3):
        copy = f"{directory}/copy"
        subprocess.run([tool, "copy", path, copy, str(ranks)], check=True)
        expect_equal(load(copy), expected, f"the package, our file of {ranks} writers")
        with safetensors.safe_open(copy, framework="np") as file:
            assert (file.metadata() or {}) == metadata, file.metadata()


def check_refusals_agree(tool, directory):
    """What the package refuses, we refuse."""
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    for fault in ({"dtype": "F33"}, {"shape": [3]}, {"shape": [-2]}, {"shape": [2.0]},
                  {"data_offsets": [0, 9]}, {"data_offsets": [1, 9]}, {"data_offsets": [8, 0]}, {"data_offsets": [0]},
                  {"shape": [2**32, 2**32]}):
        text = json.dumps({"a": one | fault}).encode()
        content = struct.pack("<Q", len(text)) + text + bytes(8)
        try:
            safetensors.deserialize(content)
        except Exception:  # the package has one exception type for all of them
            pass
        else:
            sys.exit(f"the package accepts {text}")
        path = f"{directory}/refused"
        with open(path, "wb") as file:
            file.write(content)
        run = subprocess.run([tool, "list", path], capture_output=True, text=True)
        assert run.returncode == 1 and "refused: " in run.stderr, (text, run)


def main():
    tool = sys.argv[1]
    seed = 1234
    print(f"seed {seed}, safetensors {safetensors.__version__}, numpy {numpy.__version__}")
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/file"
        tensors = 0
        for metadata in ({}, {"made by": "né \"x\"\n"}):
            for _ in range(5):
                write_python_file(path, draw, metadata or None)
                check_file(tool, directory, path, metadata)
                tensors += len(load(path))
        write_sub_byte_file(path)
        check_file(tool, directory, path, {})
        check_refusals_agree(tool, directory)
    print(f"{tensors} tensors are the same both ways")


main()
