#!/usr/bin/env bash
# How long planning takes (`--strategy auto`: every plan written out and simulated), and a ring of 4,096 ranks simulated, with
# its memory. One core; needs build/bin/plait and GNU time. Prints Markdown.
#
#   bash bench/planning.sh > bench/results/planning.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
plait=${PLAIT:-build/bin/plait}

# row WHAT RANKS FLAGS...
row() {
  local what=$1 ranks=$2
  shift 2
  /usr/bin/time -f "memory %M" "$plait" plan --ranks "$ranks" "$@" 2>&1 | python3 -c '
import re, sys
text = sys.stdin.read()
plans, planning = re.search(r"planning: (\d+) plans? weighed in (.*)", text).groups()
predicted = re.search(r"predicted: (.*?),", text).group(1)
taken = re.search(r"^  (\S+) +(\S+) .*<- taken", text, re.M)
memory = int(re.search(r"memory (\d+)", text).group(1)) / 1024
print(f"| {sys.argv[1]} | {sys.argv[2]} | {plans} | {planning} | `{taken[1]}` {taken[2]} | {predicted} | {memory:.0f} MiB |")' "$what" "$ranks"
}

echo "# Planning and simulating"
echo
echo "$(date --utc +%F), $(lscpu | sed -n 's/^Model name: *//p'), one core. Machine model: \`h200\`. Made by \`bash bench/planning.sh\`."
echo
echo "| problem | ranks | plans weighed | planning | taken | predicted run | memory of the process |"
echo "|---|---|---|---|---|---|---|"
prefill=(--heads 64 --kv-heads 8 --dim 128 --causal --machine h200)
for ranks in 8 16 32 64 128 256 512 1024; do row "1M tokens, causal, 64:8 heads" "$ranks" "${prefill[@]}" --tokens 1M; done
for ranks in 8 64 256; do row "16M tokens, causal, 64:8 heads" "$ranks" "${prefill[@]}" --tokens 16M; done
for ranks in 8 64 256; do row "128K tokens, one head, full" "$ranks" --tokens 128K --heads 1 --dim 128 --machine h200; done
documents=$(python3 -c 'print(",".join(["4096"] * 256))')
for ranks in 8 64; do row "256 documents of 4K, causal, 64:8 heads" "$ranks" "${prefill[@]}" --tokens 1M --documents "$documents"; done
row "8 queries, 1M keys, 64:8 heads" 64 --tokens 8 --kv-tokens 1M --heads 64 --kv-heads 8 --dim 128 --machine h200
for strategy in ring hierarchical:512x8; do
  row "1M tokens, causal, 64:8 heads, $strategy alone, zigzag" 4096 "${prefill[@]}" --tokens 1M --strategy "$strategy" --layout zigzag
done
