"""bench/gpu/run.py against servers that answer made-up times: ratios, verdicts and failures reach the table."""
import json
import pathlib
import subprocess
import sys
import tempfile

RUN = pathlib.Path(__file__).resolve().parents[2] / "bench/gpu/run.py"
SERVER = """
import json, sys
milliseconds, wrong, fails = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for line in sys.stdin:
    case = json.loads(line)
    if fails in line:
        print(json.dumps({"error": "no | such case"}), flush=True)
        continue
    seconds = [milliseconds * 1e-3] * 3
    print(json.dumps({"kernel": "k", "seconds": seconds, "flops": 1e12, "bytes": 1e9, "checked_rows": 8,
                      "extra_bytes": 1 << 20, "wrong_rows": wrong, "tflops": 1e9 / milliseconds,
                      "gbytes_per_second": 1e3 / milliseconds}), flush=True)
"""


def run(folder, only, ours, peers):
    server = folder / "server.py"
    server.write_text(SERVER)
    command = [sys.executable, RUN, "--only", only, "--out", folder / "table.md", "--commit", "abc",
               "--ours", f"{sys.executable} {server} {ours}", "--peers", f"{sys.executable} {server} {peers}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    table = folder / "table.md"
    return done, table.read_text() if table.exists() else done.stderr


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        done, table = run(folder, "peers,state,unfused", "1 0 never", "2 0 never")
        assert done.returncode == 0, table + done.stderr
        assert table.count("pass") == 26 and "2.000" in table, table
        assert len(json.loads((folder / "table.json").read_text())) > 26 * 4
        done, table = run(folder, "peers", "2 0 never", "1 0 never")
        assert done.returncode == 1 and table.count("FAIL") == 24 and "0.500" in table, table
        done, table = run(folder, "peers", "1 3 never", "2 0 never")
        assert done.returncode == 1 and table.count("FAIL") == 24, "wrong rows are a failure, however fast: " + table
        done, table = run(folder, "peers", "1 0 131072", "2 0 never")
        assert done.returncode == 1 and table.count("not measured") == 2 and table.count("pass") == 22, table
        done, table = run(folder, "carried", "1 0 never", "1 0 never")  # blocks: ratio 1 is far above 0.13
        assert done.returncode == 1 and table.count("FAIL") == 1 and table.count("pass") == 4, table


if __name__ == "__main__":
    main()
