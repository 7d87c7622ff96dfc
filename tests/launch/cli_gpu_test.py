"""The command line on a GPU, as users run it: cli_gpu_test.py PLAIT MPIEXEC. Every subcommand that takes --device cuda, on
one rank and on two that share the GPU; results are checked by --check against the fp64 oracle, times only for being there."""

import json
import pathlib
import subprocess
import tempfile

from cli import run


def on_gpu(ranks):
    return ["--device", "cuda", *(["--share-gpu"] if ranks > 1 else [])]


def check_attend(folder):
    tensors = pathlib.Path(folder, "random.safetensors")
    run(["generate", "--tokens", "1K", "--heads", "8:2", "--dim", 128, "--output", tensors])
    for ranks in (1, 2):
        report = pathlib.Path(folder, "report.json")
        run(["attend", "--input", tensors, "--causal", "--check", "--json", report, *on_gpu(ranks)], ranks)
        checked = json.loads(report.read_text())["check"]
        assert checked["passed"] and checked["rows"] > 0, checked


def check_calibrate(folder):
    for ranks in (1, 2):
        path = pathlib.Path(folder, "gpu.json")
        run(["calibrate", "--seconds", 1, "--output", path, *on_gpu(ranks)], ranks)
        machine = json.loads(path.read_text())
        assert machine["units"] > 1 and machine["crowd_ranks"] == 1 and machine["host_seconds_per_byte"] == 0, machine
        assert machine["flops_per_second"] > 1e12 and machine["memory_bytes_per_second"] > 1e11, machine
        said = run(["plan", "--tokens", "64K", "--heads", "8:2", "--ranks", 4, "--machine", path, "--json", "-"]).stdout
        assert 0 < json.loads(said)["seconds"]["predicted"] < 10, said


def check_study(folder):
    for ranks in (1, 2):
        path = pathlib.Path(folder, "study.json")
        run(["study", "--ranks", ranks, "--tokens", "2K", "--heads", "8:2", "--dim", 128, "--strategies", "ring",
             "--json", path, *on_gpu(ranks)], ranks)  # fmt: skip
        rows = json.loads(path.read_text())
        rows = rows["rows"] if isinstance(rows, dict) else rows
        measured = [row for row in rows if row["source"] == "measured"]
        assert measured and all(row["seconds"] > 0 for row in measured), rows


def check_sharing_is_asked_for(folder):
    path = pathlib.Path(folder, "none.json")
    gpus = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout.count("\nGPU") + 1
    said = run(["calibrate", "--seconds", 1, "--output", path, "--device", "cuda"], gpus + 1, code=1)
    assert "--share-gpu" in said.stderr and not path.exists(), said.stderr


assert "cuda" in run(["info"]).stdout
with tempfile.TemporaryDirectory() as scratch:
    check_attend(scratch)
    check_calibrate(scratch)
    check_study(scratch)
    check_sharing_is_asked_for(scratch)
