#!/usr/bin/env bash
# How long planning takes (`--strategy auto`: every plan considered, the best written out and simulated), how long
# the plan that is taken needs alone, and plans of 4,096 ranks, with their memory. One core; needs build/bin/plait
# and GNU time. Prints Markdown: all of bench/results/planning.md but its last section, which is written by hand.
#
#   bash bench/planning.sh > bench/results/planning.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
plait=${PLAIT:-build/bin/plait}

# row WHAT RANKS FLAGS...
row() {
  local what=$1 ranks=$2
  shift 2
  python3 - "$plait" "$what" "$ranks" "$@" <<'EOF'
import re, subprocess, sys

plait, what, ranks, *flags = sys.argv[1:]


def plan(*more):
    """Plans weighed to the end and all, the time, the plan taken, its prediction, the process's MiB."""
    words = ["/usr/bin/time", "-f", "memory %M", plait, "plan", "--ranks", ranks, *flags, *more]
    text = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    weighed, plans, planning = re.search(r"planning: (\d+) of (\d+) plans? weighed to the end, in (.*)", text).groups()
    taken = re.search(r"^  (\S+) +(\S+) .*<- taken", text, re.M).groups()
    memory = int(re.search(r"memory (\d+)", text).group(1)) / 1024
    return weighed, plans, planning, taken, re.search(r"predicted: (.*?),", text).group(1), memory


weighed, plans, planning, (strategy, layout), predicted, memory = plan()
alone = plan("--strategy", strategy, "--layout", layout)[2] if int(plans) > 1 else planning
print(f"| {what} | {ranks} | {plans} | {weighed} | {planning} | {alone} | `{strategy}` {layout} | {predicted} | {memory:.0f} MiB |")
EOF
}

echo "# Planning and simulating"
echo
echo "$(date --utc +%F), $(lscpu | sed -n 's/^Model name: *//p'), one core. Machine model: \`h200\`. Made by \`bash bench/planning.sh\`."
echo
echo "| problem | ranks | plans | weighed to the end | planning | of that, the plan taken: written and simulated alone | taken | predicted run | memory of the process |"
echo "|---|---|---|---|---|---|---|---|---|"
prefill=(--heads 64 --kv-heads 8 --dim 128 --causal --machine h200)
for ranks in 8 16 32 64 128 256 512 1024 4096; do row "1M tokens, causal, 64:8 heads" "$ranks" "${prefill[@]}" --tokens 1M; done
for ranks in 8 64 256; do row "16M tokens, causal, 64:8 heads" "$ranks" "${prefill[@]}" --tokens 16M; done
for ranks in 8 64 256; do row "128K tokens, one head, full" "$ranks" --tokens 128K --heads 1 --dim 128 --machine h200; done
documents=$(python3 -c 'print(",".join(["4096"] * 256))')
for ranks in 8 64; do row "256 documents of 4K, causal, 64:8 heads" "$ranks" "${prefill[@]}" --tokens 1M --documents "$documents"; done
row "8 queries, 1M keys, 64:8 heads" 64 --tokens 8 --kv-tokens 1M --heads 64 --kv-heads 8 --dim 128 --machine h200
for strategy in ring hierarchical:512x8; do
  row "1M tokens, causal, 64:8 heads, $strategy alone, zigzag" 4096 "${prefill[@]}" --tokens 1M --strategy "$strategy" --layout zigzag
done
