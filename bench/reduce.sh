#!/usr/bin/env bash
# Where the states of few queries become one: by messages on a tree (tree:log), by messages straight home (tree:direct), and
# in MPI's own reduce-scatter with Plait's merge as its operator (tree:native). 4 ranks on this host, then on 2 and 4 hosts
# (network namespaces, as root) joined by 1 and 4 Gbit/s. Needs build/bin/plait. Prints Markdown.
#
#   bash bench/reduce.sh > bench/results/reduce.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
plait=$(realpath "${PLAIT:-build/bin/plait}")
[[ $EUID -ne 0 ]] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS=1
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT

# measure WHERE RANKS QUERIES LAUNCHER...: one line a strategy.
measure() {
  local where=$1 ranks=$2 queries=$3
  shift 3
  "$@" "$plait" study --tokens "$queries" --kv-tokens 8K --heads 8:8 --dim 128 --dtype f32 --ranks "$ranks" --threads 1 \
    --strategies tree:log,tree:direct,tree:native --layout contiguous --repeat 21 --csv "$rows" >/dev/null 2>&1
  python3 - "$where" "$rows" <<'PYTHON'
import csv, sys
for row in csv.DictReader(open(sys.argv[2])):
    low, middle, high = (f"{float(row[key]) * 1e3:.2f}" for key in ("seconds_min", "seconds", "seconds_max"))
    print(f"| {sys.argv[1]} | {row['ranks']} | {row['tokens']} | `{row['plan']}` | {middle} | {low} to {high} | {row['bytes_max']} |")
PYTHON
}

echo "# States that meet at home, by messages and in MPI's own reduction"
echo
echo "$(date --utc +%F), $(lscpu | sed -n 's/^Model name: *//p'), $(nproc --all) hardware threads, $(mpirun --version | head -n 1)."
echo "8,192 keys over the ranks, 8 heads of 128, f32, full mask; median of 21 runs after a warm-up, lowest to highest, in ms."
echo "\`tree:native\` is MPI_Ireduce_scatter; its bytes are those that any reduce-scatter must move, not what this MPI moves."
echo "Made by \`bash bench/reduce.sh\`."
echo
echo "| where | ranks | queries | plan | ms | lowest to highest | bytes sent, most |"
echo "|---|---|---|---|---|---|---|"
for queries in 4 64 512; do
  measure "one host" 4 "$queries" mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -np 4
  if [[ $EUID -eq 0 ]]; then
    measure "2 hosts, 1 Gbit/s" 2 "$queries" bash tests/network/hosts.sh --hosts 2 --rate 1gbit --
    measure "4 hosts, 4 Gbit/s" 4 "$queries" bash tests/network/hosts.sh --hosts 4 --rate 4gbit --
  fi
done
