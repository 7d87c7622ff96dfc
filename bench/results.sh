#!/usr/bin/env bash
# Measures what the README and bench/results/cpu.md report, from a finished build/: errors against the oracle, mutants,
# faults, folds (bench/results_folds.sh), overlap. Prints Markdown; bash bench/results.sh > bench/results/cpu.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ $EUID -ne 0 ]] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS=1

fence() { echo '```'; "$@"; echo '```'; }
ranks() { mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -np "$@"; }

echo "# Measured on CPUs"
echo
echo "$(date --utc +%F), commit $(git rev-parse --short HEAD), $(lscpu | sed -n 's/^Model name: *//p'), $(nproc --all) hardware threads,"
echo "$(g++ --version | head -n 1), $(mpirun --version | head -n 1). Made by \`bash bench/results.sh\`."
echo
echo "## Errors against the fp64 oracle"
echo
echo "301 tokens, 4 query over 2 key/value heads, D 64, layout auto. The tolerance is twice the error of a plain"
echo "implementation in the same type, plus two rounding units (launch/oracle.hpp)."
echo
echo "A cell is the case that came nearest to its tolerance: error / tolerance."
echo
for count in 1 2 4 7; do
  ranks "$count" build/tests/attention_test --gtest_filter='*EveryTypeMaskAndStrategy'
done | python3 bench/error_table.py
echo
echo "## The error does not grow with the ring"
echo
echo "420 tokens, full mask, rings of 1 to 7 ranks; the root mean square over all outputs is the steadier figure."
echo
fence bash -c "mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -np 7 build/tests/attention_test --gtest_filter='*ErrorDoesNotGrow*' | grep '^ring of'"
echo
echo "## Mutants of plans"
echo
fence bash -c "build/tests/verify_test | grep ^mutants"
echo
echo "## Faults"
echo
echo '```'
for fault in killed_rank stopped_rank link_down differing_flags truncated_input full_disk file_size_limit; do
  printf '%s: ' "$fault"
  ctest --test-dir build -V -R "^faults.$fault\$" |
    sed -n 's/^[0-9]*: \(ended.*\|skipped.*\|hosts.sh: skipped.*\)/\1/p' | sed 's|/[^ ]*/plait-fault-[^/]*/||g'
done
echo '```'
echo
bash bench/results_folds.sh
echo
echo "## Overlap: a ring over two hosts joined by 1 Gbit/s"
echo
fence python3 bench/overlap.py
