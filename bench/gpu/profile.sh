#!/usr/bin/env bash
# Bytes that a fold moves to and from device memory against the compulsory ones, and what each kernel occupies.
# Prints Markdown. usage: bash bench/gpu/profile.sh [BUILD_FOLDER]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${1:-build-gpu}
failed=0
export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin

echo "## Device memory traffic of one fold, bf16, D 128, 16 heads, full mask"
echo
echo "Compulsory: q, k and v read once, out and lse written once."
echo
echo "| N | read MiB | compulsory | ratio | written MiB | compulsory | ratio |"
echo "|---|---|---|---|---|---|---|"
for tokens in 4096 8192 16384 32768 65536; do
  # One warm-up and one repeat: the second fold is the one measured.
  echo "{\"tokens\": $tokens, \"repeat\": 1, \"checked_rows\": 0}" |
    ncu --clock-control none --csv --print-units base --kernel-name 'regex:fold' --launch-skip 1 --launch-count 1 \
      --metrics dram__bytes_read.sum,dram__bytes_write.sum "$build/bin/fold_bench" --device cuda --serve |
    python3 -c '
import csv, sys
tokens = int(sys.argv[1])
rows = csv.DictReader(line for line in sys.stdin if line.startswith("\""))
moved = {row["Metric Name"]: float(row["Metric Value"].replace(",", "")) for row in rows}
read, written = moved["dram__bytes_read.sum"], moved["dram__bytes_write.sum"]
tensor = tokens * 16 * 128 * 2
must_read, must_write = 3 * tensor, tensor + tokens * 16 * 4
mib = 2**20
print(f"| {tokens} | {read / mib:.1f} | {must_read / mib:.1f} | {read / must_read:.2f} "
      f"| {written / mib:.1f} | {must_write / mib:.1f} | {written / must_write:.2f} |")' "$tokens" || { echo "| $tokens | not measured | | | | | |"; failed=1; }
done
echo
echo "## Registers, stack (spills) and shared memory per kernel"
echo
echo '```'
cuobjdump --dump-resource-usage "$build/bin/fold_bench" 2>/dev/null | grep -E 'Function|REG' | c++filt || { echo "not found in $build/bin/fold_bench"; failed=1; }
echo '```'
exit "$failed"
