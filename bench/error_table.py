#!/usr/bin/env python3
"""Shortens the error table of attention_test (stdin): one row per type and rank count, the worst of all strategies.

A cell is the case that came nearest to its tolerance: error / tolerance."""
import sys

cases, worst, worst_lse, counts, strategies, masks = 0, {}, {}, {}, {}, []
for line in sys.stdin:
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    if len(cells) != 8 or not cells[0].isdigit():
        continue
    ranks, dtype, mask, strategy = int(cells[0]), cells[1], cells[2], cells[3]
    out, out_tolerance, lse, lse_tolerance = map(float, cells[4:])
    if not (out <= out_tolerance and lse <= lse_tolerance):
        sys.exit(f"error_table.py: not within its tolerance: {line}")
    cases += 1
    strategies.setdefault(strategy.split(":")[0], set()).add(strategy)
    masks += [mask] if mask not in masks else []
    row = (dtype, ranks)
    counts[row] = counts.get(row, 0) + 1
    worst[row, mask] = max(worst.get((row, mask), (0, 0, 0)), (out / out_tolerance, out, out_tolerance))
    worst_lse[row] = max(worst_lse.get(row, (0, 0, 0)), (lse / lse_tolerance, lse, lse_tolerance))
if cases == 0:
    sys.exit("error_table.py: no rows of attention_test on stdin")

cell = lambda found: f"{found[1]:.1e} / {found[2]:.1e}"
print("| type | ranks | cases | " + " | ".join(masks) + " | lse |")
print("|---" * (len(masks) + 4) + "|")
for row in counts:
    cells = " | ".join(cell(worst[row, mask]) for mask in masks)
    print(f"| {row[0]} | {row[1]} | {counts[row]} | {cells} | {cell(worst_lse[row])} |")
families = [f"{family} ({len(variants)})" for family, variants in sorted(strategies.items())]
print(f"\n{cases} cases, all within their tolerances. Strategies (and their variants): {', '.join(families)}.")
