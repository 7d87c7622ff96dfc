#!/usr/bin/env bash
# The README's scaling figure and tables in one command: causal prefills of 1M and 16M tokens, 64 query over 8 key/value
# heads of 128, bf16, on 8 to 4,096 H200s, every strategy; and the bytes that a rank sends. Simulated and counted: it needs
# neither GPUs nor mpirun, but a quarter of an hour of one core and 6 GiB. Builds build/bin/plait if need be. Writes scaling.md, the rows
# (CSV) and the pictures (SVG) to bench/results/scaling/, or to the folder that is named.
#
#   bash bench/study.sh [FOLDER]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-bench/results/scaling}
plait=${PLAIT:-build/bin/plait}

if [[ ! -x $plait ]]; then
  cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release >&2
  cmake --build build --target plait >&2
fi

mkdir -p "$folder"
for tokens in 1M 16M; do
  # The layout that is even under a causal mask; the tree is for few queries, and needs more memory here than there is.
  "$plait" study --tokens "$tokens" --heads 64:8 --dim 128 --dtype bf16 --causal --layout zigzag --machine h200 \
    --ranks 8..4096 --strategies ring,allgather,passq,mesh,ulysses,hierarchical \
    --csv "$folder/prefill-$tokens.csv" --plots "$folder/prefill-$tokens"
done
python3 bench/scaling.py --plait "$plait" --folder "$folder" > "$folder/scaling.md"
