#!/usr/bin/env bash
# The part of bench/results/cpu.md on the CPU's folds: shares of the peak, decoding, PyTorch's folds beside ours (where
# PYTHON, default python3, has torch). Prints Markdown.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export OMP_NUM_THREADS=1

rows() { build/bin/fold_bench "$@" | tail -n +2; }

echo "## Folds on the CPU"
echo
echo "$(date --utc +%F), commit $(git rev-parse --short HEAD), $(lscpu | sed -n 's/^Model name: *//p' | head -n 1), $(nproc --all) hardware threads, one of them used."
echo "The share is the median over repeats of a fold's rate (FLOP of kept pairs) over the multiply-add peak of the same type and path, measured"
echo "before each repeat in the same process; #wrong counts rows beyond the oracle's tolerance."
echo
echo '```'
build/bin/fold_bench --heads 2
for tokens in 4096 8192; do
  for dim in 128 64; do
    for dtype in f32 bf16; do
      rows --heads 2 --repeat 7 --tokens "$tokens" --dim "$dim" --dtype "$dtype" --isa fastest
    done
  done
done
echo '```'
echo
echo "### One query over 64k keys, as a share of the rate at which memory is read in order"
echo
echo '```'
for heads in "1 1" "4 4" "8 8" "8 2"; do
  read -r q_heads kv_heads <<<"$heads"
  for dtype in f32 bf16 f16; do
    echo "$q_heads:$kv_heads heads $(rows --queries 1 --tokens 65536 --mask full --dim 128 --repeat 25 --heads "$q_heads" --kv-heads "$kv_heads" --dtype "$dtype" --isa fastest)"
  done
done
echo '```'
echo
echo "### PyTorch's scaled_dot_product_attention on the same thread"
echo
"${PYTHON:-python3}" bench/cpu_peer.py || echo "Not measured."
