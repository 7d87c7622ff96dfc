#!/bin/bash
# Exit codes and messages: cli_usage_test.sh PLAIT MPIEXEC INPUT. Under mpirun a message is said once.
plait=$1 input=$3
mpi=("$2" --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -np 3)
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
failed=0

# expect CODE TIMES TEXT COMMAND...: the exit code, and on how many lines of output the text stands.
expect() {
  local code=$1 times=$2 text=$3
  shift 3
  "$@" >"$scratch/out" 2>&1
  local got=$? lines
  lines=$(grep -cF -e "$text" "$scratch/out")
  if [ "$got" != "$code" ] || [ "$lines" != "$times" ]; then
    echo "FAILED: $*: exit code $got (expected $code), '$text' on $lines lines (expected $times):"
    cat "$scratch/out"
    failed=1
  fi
}

expect 0 1 "  attend " "$plait" --help
for subcommand in attend plan study calibrate generate info; do
  expect 0 1 "Exit codes: 0 done, 1 failed, 2 usage, 3 check failed, 75" "$plait" $subcommand --help
  expect 0 1 "Examples:" "$plait" $subcommand --help
done
expect 2 1 "did you mean attend?" "$plait" attned
expect 2 1 "which subcommand?" "$plait"
expect 2 1 "did you mean --causal?" "$plait" plan --tokens 8 --causl
expect 2 1 "--ranks 0: expected a whole number from 1" "$plait" plan --tokens 8 --ranks 0
expect 2 1 "strategy 'rnig': must be one of ring[:PIECES], allgather" "$plait" plan --tokens 8 --strategy rnig
expect 2 1 "strategy 'ring' has no native reduction" "$plait" plan --tokens 8 --ranks 2 --strategy ring --reduce native
expect 2 1 "--reduce mpi: expected one of p2p, native" "$plait" plan --tokens 8 --reduce mpi
expect 2 1 "--input is missing" "$plait" attend
expect 2 1 "did you mean --strategy?" "${mpi[@]}" "$plait" attend --strateg ring
expect 2 1 "--documents: the lengths sum to 7" "${mpi[@]}" "$plait" attend --input "$input" --documents 3,4
expect 1 1 "--device cpu works" env CUDA_VISIBLE_DEVICES= "${mpi[@]}" "$plait" attend --input "$input" --device cuda
expect 1 1 "transport nccl: " env CUDA_VISIBLE_DEVICES= "${mpi[@]}" "$plait" attend --input "$input" --transport nccl
expect 1 1 "transport peer: it moves device memory, and ranks compute on CPUs; transport mpi works" env CUDA_VISIBLE_DEVICES= "${mpi[@]}" "$plait" attend --input "$input" --transport peer
expect 2 1 "--transport tcp: expected one of auto, mpi, nccl, peer" "${mpi[@]}" "$plait" attend --input "$input" --transport tcp
expect 2 1 "--device tpu: expected one of auto" "${mpi[@]}" "$plait" attend --input "$input" --device tpu
expect 1 1 "$scratch/none" "${mpi[@]}" "$plait" attend --input "$scratch/none"
expect 1 1 "can't write in $scratch/none" "$plait" attend --input "$input" --output "$scratch/none/out"
expect 1 1 "--output $scratch: exists and is no regular file" "$plait" attend --input "$input" --output "$scratch"
expect 1 1 "--output /dev/full: exists" "$plait" attend --input "$input" --output /dev/full
expect 0 1 "oracle: passed" "${mpi[@]}" "$plait" attend --input "$input" --causal --reduce native --check 64
expect 0 1 "verified: coverage" "$plait" plan --tokens 4K --ranks 8 --causal
# Chosen by samples, an estimate is called one, unless the whole plan is asked for.
expect 0 1 "an estimate by the programs of" "$plait" plan --tokens 64K --ranks 72 --causal --weigh sampled
expect 0 1 "<- taken, by estimate" "$plait" plan --tokens 64K --ranks 72 --causal --weigh sampled
expect 0 1 "waiting for transfers on the rank that waits most" \
  "$plait" plan --tokens 64K --ranks 72 --causal --weigh sampled --verify
expect 2 1 "--weigh few: expected one of best, all, sampled" "$plait" plan --tokens 8 --weigh few
expect 0 1 "device cuda: none (" env CUDA_VISIBLE_DEVICES= "${mpi[@]}" "$plait" info

# A rank with other flags: nobody runs, and the message says where.
expect 2 1 "--threads none" "$2" --oversubscribe --bind-to none \
  -np 1 "$plait" attend --input "$input" : -np 1 "$plait" attend --input "$input" --threads none
expect 1 1 "the ranks were not started with the same run" "$2" --oversubscribe --bind-to none \
  -np 1 "$plait" attend --input "$input" --causal --strategy ring --layout contiguous : \
  -np 1 "$plait" attend --input "$input" --strategy ring --layout contiguous

# stdout carries the JSON alone.
"$plait" plan --tokens 1K --ranks 4 --json - 2>/dev/null | head -c 1 | grep -q '{' || failed=1
exit $failed
