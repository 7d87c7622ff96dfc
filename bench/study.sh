#!/usr/bin/env bash
# The README's scaling figure in one command: a causal prefill of 1M tokens, 64 query over 8 key/value heads of 128, bf16,
# on 8 to 4,096 H200s, every strategy. Simulated: it needs neither GPUs nor mpirun. Builds build/bin/plait if need be.
# Writes the rows (CSV, JSON) and the pictures (SVG) to bench/results/study/, or to the folder that is named.
#
#   bash bench/study.sh [FOLDER]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-bench/results/study}

if [[ ! -x build/bin/plait ]]; then
  cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release >&2
  cmake --build build --target plait >&2
fi

# One H200's causal fold rate as bench/results/h200.md has it, and a network port of 400 Gbit/s for each GPU.
machine=(--fold-rate 675e12 --bandwidth 50e9 --latency 5e-6)

mkdir -p "$folder"
build/bin/plait study --tokens 1M --heads 64:8 --dim 128 --dtype bf16 --causal --ranks 8..4096 "${machine[@]}" \
  --csv "$folder/prefill.csv" --json "$folder/prefill.json" --plots "$folder"
