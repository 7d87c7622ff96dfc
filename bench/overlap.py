#!/usr/bin/env python3
"""How well a ring hides its transfers: two hosts (network namespaces) joined by a link of 1 Gbit/s.

Times three jobs in turn, several times over: the transfers alone (the same keys and values travel, for two queries), the
folds alone (a link so fast that it does not count), and the ring with both. With perfect overlap the ring takes as long
as the larger of the two. Needs root and build/bin/plait; exits with 77 where hosts cannot be made.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent
PLAIT = TOP / "build/bin/plait"
HOSTS = TOP / "tests/network/hosts.sh"


def generate(path, queries, keys, heads):
    subprocess.run([PLAIT, "generate", "--tokens", str(queries), "--kv-tokens", str(keys), "--heads", str(heads),
                    "--kv-heads", str(heads), "--dim", "128", "--dtype", "f32", "--output", path],
                   check=True, stdout=subprocess.DEVNULL)


def seconds(path, rate, repeat):
    """Median time of the ring over two hosts, the slower rank's."""
    job = [HOSTS, "--hosts", "2", "--rate", rate, "--", PLAIT, "attend", "--input", path, "--strategy", "ring",
           "--layout", "contiguous", "--threads", "1", "--repeat", str(repeat), "--json", "-"]
    done = subprocess.run(job, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode == 77:
        print(done.stdout.strip())
        sys.exit(77)
    if done.returncode != 0:
        sys.exit(f"overlap.py: the job failed:\n{done.stdout}{done.stderr}")
    report = json.loads(done.stdout)
    return report["seconds"]["median"], sum(report["bytes"]["moved"]) / 2


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--tokens", type=int, default=1024, help="queries, and keys (default 1024)")
    flags.add_argument("--heads", type=int, default=32, help="heads of 128 dimensions (default 32)")
    flags.add_argument("--rounds", type=int, default=5, help="times that the three jobs are run (default 5)")
    flags.add_argument("--repeat", type=int, default=5, help="runs of each job (default 5)")
    asked = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, few = pathlib.Path(folder) / "whole.safetensors", pathlib.Path(folder) / "few.safetensors"
        generate(whole, asked.tokens, asked.tokens, asked.heads)
        generate(few, 2, asked.tokens, asked.heads)
        print(f"{'transfers':>12} {'folds':>12} {'both':>12} {'both / larger':>14} {'MB/s each way':>14}")
        ratios = []
        for _ in range(asked.rounds):
            transfer, moved = seconds(few, "1gbit", asked.repeat)
            fold, _ = seconds(whole, "100gbit", asked.repeat)
            both, _ = seconds(whole, "1gbit", asked.repeat)
            ratios.append(both / max(transfer, fold))
            print(f"{transfer * 1e3:>9.1f} ms {fold * 1e3:>9.1f} ms {both * 1e3:>9.1f} ms {ratios[-1]:>14.3f} "
                  f"{moved / transfer * 1e-6:>14.1f}")
        print(f"median of both / larger: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
