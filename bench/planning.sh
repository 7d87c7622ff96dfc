#!/usr/bin/env bash
# How long planning takes (`--strategy auto`), what the plan that is taken needs written out and simulated alone, plans of
# 4,096 ranks with their memory, and what choosing by estimate costs. One core; needs build/bin/plait and GNU time. Times
# are the least of three, as the machine is shared; those of more than a second are taken once. Prints Markdown: all of
# bench/results/planning.md but its last section, which is written by hand.
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


def seconds(text):
    number, unit = text.split()
    return float(number) * {"s": 1, "ms": 1e-3, "µs": 1e-6}[unit]


def once(*more):
    """Plans weighed to the end and all, the time, the plan taken, its prediction, the process's MiB."""
    words = ["/usr/bin/time", "-f", "memory %M", plait, "plan", "--ranks", ranks, *flags, *more]
    text = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    weighed, plans, planning = re.search(r"planning: (\d+) of (\d+) plans? weighed to the end, in (.*)", text).groups()
    taken = re.search(r"^  (\S+) +(\S+) .*<- taken", text, re.M).groups()
    memory = int(re.search(r"memory (\d+)", text).group(1)) / 1024
    return weighed, plans, planning, taken, re.search(r"predicted: (.*?),", text).group(1), memory


def plan(*more):
    runs = [once(*more)]
    while len(runs) < 3 and seconds(runs[0][2]) < 1:
        runs.append(once(*more))
    return min(runs, key=lambda run: seconds(run[2]))


weighed, plans, planning, (strategy, layout), predicted, memory = plan()
alone, simulated = planning, predicted
if int(plans) > 1:
    _, _, alone, _, simulated, _ = plan("--strategy", strategy, "--layout", layout)
print(f"| {what} | {ranks} | {plans} | {weighed} | {planning} | {alone} | `{strategy}` {layout} | {predicted} | {simulated} | {memory:.0f} MiB |")
EOF
}

# regret WHAT FLAGS...: the plan that the programs of a few ranks choose, against what is taken of all that are simulated
regret() {
  python3 - "$plait" "$@" <<'EOF'
import json, subprocess, sys

plait, what, *flags = sys.argv[1:]


def plan(*more):
    words = [plait, "plan", "--json", "-", *flags, *more]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def name(plan):
    return plan["strategy"], plan["layout"]


losses, errors, other = [], [], 0
for machine in ("h200", "flat"):
    for ranks in (72, 96, 128, 192):
        words = ("--machine", machine, "--ranks", str(ranks))
        chosen, best = plan(*words, "--weigh", "sampled"), plan(*words, "--weigh", "all")
        times = {name(one): one["predicted_seconds"] for one in best["candidates"]}
        simulated = times[name(chosen)]
        losses.append(simulated / best["seconds"]["predicted"] - 1)
        errors.append(chosen["seconds"]["predicted"] / simulated - 1)
        other += name(chosen) != name(best)
print(f"| {what} | {len(losses)} | {other} | {100 * sum(losses) / len(losses):.2f}% | {100 * max(losses):.1f}% | "
      f"{100 * min(errors):+.1f}% to {100 * max(errors):+.1f}% |")
EOF
}

echo "# Planning and simulating"
echo
echo "$(date --utc +%F), $(lscpu | sed -n 's/^Model name: *//p'), one core; times are the least of three. Machine model: \`h200\`. Made by"
echo "\`bash bench/planning.sh\`. Where no plan was weighed to the end, the predicted run is an estimate by the programs of a few ranks."
echo
echo "| problem | ranks | plans | weighed to the end | planning | the plan taken, written and simulated alone | taken | predicted run | simulated | memory of the process |"
echo "|---|---|---|---|---|---|---|---|---|---|"
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

echo
echo "## What choosing by estimate costs"
echo
echo "\`--weigh sampled\` against \`--weigh all\`, 72 to 192 ranks, machine models \`h200\` and \`flat\`: the simulated time of the plan that"
echo "the estimates choose, over that of what \`--weigh all\` takes, less 1; and the estimate of the plan chosen over its simulated time, less 1."
echo
echo "| problem | cases | another plan than the best | mean loss | largest | estimate against simulation |"
echo "|---|---|---|---|---|---|"
grouped=(--heads 64 --kv-heads 8 --dim 128)
mixed=$(python3 -c '
left, lengths = 1 << 20, []
while left:
    lengths.append(min(left, 1000 + len(lengths) * 7919 % 60000))
    left -= lengths[-1]
print(",".join(map(str, lengths)))')
regret "1M tokens, causal, 64:8 heads" "${grouped[@]}" --tokens 1M --causal
regret "16K tokens, causal, 64:8 heads" "${grouped[@]}" --tokens 16K --causal
regret "128K tokens, one head, full" --tokens 128K --heads 1 --dim 128
regret "1M tokens, window of 128K, 64:8 heads" "${grouped[@]}" --tokens 1M --window 128K,0
regret "256 documents of 4K, causal, 64:8 heads" "${grouped[@]}" --tokens 1M --causal --documents "$documents"
regret "documents of 1K to 60K, causal, 64:8 heads" "${grouped[@]}" --tokens 1M --causal --documents "$mixed"
regret "8 queries, 1M keys, 64:8 heads" "${grouped[@]}" --tokens 8 --kv-tokens 1M
