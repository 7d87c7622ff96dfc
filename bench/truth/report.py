"""The truth harness's verdicts: rows of predicted against measured, as CSV and as Markdown.

    python3 bench/truth/report.py bench/results/truth      all set-ups in a folder, each in a folder of its own, summed up
"""

import csv
import dataclasses
import json
import math
import pathlib
import statistics
import sys

NEAR = 1.05  # a pick this close to the best measured time is as good as it
SAME = 1.10  # calibrations before and after a case that predict it this much alike are of one machine


@dataclasses.dataclass
class Row:
    """One plan of one case."""

    case: str
    strategy: str
    layout: str
    predicted_seconds: float
    picked: bool  # by the planner
    seconds: list  # medians of the jobs, one per round
    planned_bytes: list  # sent, per rank, as the plan says
    moved_bytes: list  # as the transport counted
    slots_bytes: int = 0  # of memory beside the tensors, of the rank with the most
    predicted_after: float = 0.0  # seconds by the calibration after the case; 0 without

    @property
    def plan(self):
        """Plans of one layout, prediction, memory and bytes are the same, whatever their name."""
        return self.layout, self.predicted_seconds, self.slots_bytes, tuple(self.planned_bytes)

    @property
    def measured_seconds(self):
        return statistics.median(self.seconds)

    @property
    def error(self):
        """Predicted over measured, less 1."""
        return self.predicted_seconds / self.measured_seconds - 1

    @property
    def spread(self):
        """By how much the medians of identical jobs differ: what no prediction can do better than."""
        return (max(self.seconds) - min(self.seconds)) / self.measured_seconds

    @property
    def bytes_equal(self):
        return self.planned_bytes == self.moved_bytes


@dataclasses.dataclass
class Case:
    """What became of one case: its rows, and the reasons of strategies that refused it."""

    name: str
    words: str  # the problem in words
    rows: list
    skipped: int  # candidates predicted too slow to be worth a measurement
    refused: list
    machine: dict = dataclasses.field(default_factory=dict)  # that predicted, if it was calibrated: to predict anew
    after: dict = dataclasses.field(default_factory=dict)  # the machine calibrated after the case
    said: list = dataclasses.field(default_factory=list)  # by the two calibrations
    others: list = dataclasses.field(default_factory=list)  # attempts at the case that do not count, oldest first

    @property
    def change(self):
        """How many times as long the calibration after the case predicts it to take: the median over the plans; nothing
        without two calibrations."""
        if not all(row.predicted_after for row in self.rows):
            return None
        return statistics.median(row.predicted_after / row.predicted_seconds for row in self.rows)

    @property
    def changed(self):
        """Whether the machine changed its speed while the case was measured."""
        return self.change is not None and not 1 / SAME <= self.change <= SAME

    def pooled(self, row):
        """The jobs of this plan, also those that ran it under another strategy's name: on two ranks the ring and the
        all-gather are one plan."""
        return [seconds for one in self.rows if one.plan == row.plan for seconds in one.seconds]

    def pooled_seconds(self, row):
        return statistics.median(self.pooled(row))

    @property
    def best(self):
        return min(self.rows, key=self.pooled_seconds)

    @property
    def picked(self):
        return next(row for row in self.rows if row.picked)

    @property
    def regret(self):
        """The picked plan's measured time over the best measured one's: 1 = nothing was faster."""
        return self.pooled_seconds(self.picked) / self.pooled_seconds(self.best)


def counted(attempts):
    """Of the attempts at a case, oldest first, the one that counts, with the others: the first during which the machine
    stayed the same, or else the one during which it changed least. What jobs took has no say in it."""
    def distance(case):
        return abs(math.log(case.change or 1.0))
    one = next((case for case in attempts if not case.changed), None) or min(attempts, key=distance)
    return dataclasses.replace(one, others=[case for case in attempts if case is not one])


def save(path, cases):
    path.write_text(json.dumps([dataclasses.asdict(case) for case in cases], indent=1) + "\n")


def case_of(fields):
    """A case as `save` writes it."""
    return Case(**fields | {"rows": [Row(**row) for row in fields["rows"]],
                            "refused": [tuple(one) for one in fields["refused"]],
                            "others": [case_of(one) for one in fields.get("others", [])]})


def load(path, names=None):
    """The cases of these names (default: all) that a file holds, if there is one, by name."""
    held = json.loads(path.read_text()) if path.exists() else []
    return {case["name"]: case_of(case) for case in held if names is None or case["name"] in names}


def write_csv(path, cases, network):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*network, "case", "strategy", "layout", "picked", "measured_seconds", "measured_min",
                         "measured_max", "predicted_seconds", "predicted_after_seconds", "error", "planned_bytes_max",
                         "moved_bytes_max", "bytes_equal"])
        for case in cases:
            for row in case.rows:
                writer.writerow([*network.values(), case.name, row.strategy, row.layout, int(row.picked),
                                 row.measured_seconds, min(row.seconds), max(row.seconds), row.predicted_seconds,
                                 row.predicted_after, row.error, max(row.planned_bytes), max(row.moved_bytes), int(row.bytes_equal)])


def milliseconds(seconds):
    return f"{seconds * 1e3:.1f}"


def name(row):
    return f"`{row.strategy}` {row.layout}"


def summary(cases):
    """The figures that a sentence needs."""
    rows = [row for case in cases for row in case.rows]
    worst = max(rows, key=lambda row: abs(row.error))
    return {
        "rows": len(rows),
        "bytes_equal": sum(row.bytes_equal for row in rows),
        "median_error": statistics.median(abs(row.error) for row in rows),
        "worst_error": worst.error,
        "worst_row": f"{worst.case}: {name(worst)}",
        "within_25": sum(abs(row.error) < 0.25 for row in rows),
        "median_spread": statistics.median(row.spread for row in rows),
        "worst_spread": max(row.spread for row in rows),
        "cases": len(cases),
        "near": sum(case.regret <= NEAR for case in cases),
        "worst_regret": max(case.regret for case in cases),
        "again": sum(bool(case.others) for case in cases),
        "changed": sum(case.changed for case in cases),
    }


def attempts(cases):
    """All of them, those that do not count too."""
    return [attempt for case in cases for attempt in (*case.others, case)]


def percent(change):
    return "–" if change is None else f"{change - 1:+.0%}"


def steadiness(cases):
    """In words: how many cases met a machine that changed its speed, and the figures with no attempt left out, and by
    the calibrations after the cases. Nothing for cases without these."""
    if any(case.change is None for case in cases):
        return None
    total, every = summary(cases), summary(attempts(cases))
    after = [abs(row.predicted_after / row.measured_seconds - 1) for case in cases for row in case.rows]
    return (f"{total['again']} of {total['cases']} cases were measured again; in {total['changed']} the machine changed in the attempt "
            f"that counts, too. With every attempt: {every['within_25']} of {every['rows']} plans within 25%, median error "
            f"{every['median_error']:.1%}, worst {every['worst_error']:+.0%}, picks near in {every['near']} of {every['cases']}. By the "
            f"calibration after each case: {sum(error < 0.25 for error in after)} of {len(after)} within 25%, median error "
            f"{statistics.median(after):.1%}")


def markdown(cases, network, facts):
    total = summary(cases)
    lines = [
        "# Predicted against measured",
        "",
        f"{network['hosts']} hosts (network namespaces), {network['ranks']} ranks, links of {network['rate']} each way; "
        f"{facts}.",
        "",
        f"- **Bytes**: planned and moved are equal, rank by rank, for {total['bytes_equal']} of {total['rows']} plans.",
        f"- **Time**: the prediction is off by {total['median_error']:.0%} (median of the absolute error), at worst by "
        f"{total['worst_error']:+.0%} ({total['worst_row']}); {total['within_25']} of {total['rows']} within 25%.",
        f"- **Noise**: the medians of identical jobs differ by {total['median_spread']:.0%} (median), at most by "
        f"{total['worst_spread']:.0%}.",
        f"- **Pick**: the planner's own choice is within {NEAR - 1:.0%} of the best measured plan in {total['near']} of "
        f"{total['cases']} cases; at worst it takes {total['worst_regret']:.2f} times as long. Jobs of one plan under two names "
        "(on two ranks the ring and the all-gather are one) count together.",
    ]
    if steady := steadiness(cases):
        lines.append(
            f"- **Machine**: calibrated before and after each case; the calibration before predicts and picks. Where the one after "
            f"predicts {SAME - 1:.0%} more or less (median of the case's plans), the case is measured again; the first attempt "
            f"without such a change counts, or else the one with the least. {steady}.")
    lines += [
        "",
        "| case | picked | measured ms | best measured | measured ms | pick / best | median error | worst error | machine changed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        errors = [row.error for row in case.rows]
        verdict = f"{case.regret:.2f}" + ("" if case.regret <= NEAR else " **!**")
        lines.append(
            f"| {case.name} | {name(case.picked)} | {milliseconds(case.pooled_seconds(case.picked))} | {name(case.best)} | "
            f"{milliseconds(case.pooled_seconds(case.best))} | {verdict} | "
            f"{statistics.median(map(abs, errors)):.0%} | {max(errors, key=abs):+.0%} | {percent(case.change)}"
            f"{' **!**' if case.changed else ''} |")
    for case in cases:
        lines += ["", f"## {case.name}", "", f"{case.words}.", "",
                  "| plan | predicted ms | measured ms | lowest to highest | error | bytes sent, most | equal | |",
                  "|---|---|---|---|---|---|---|---|"]
        for row in sorted(case.rows, key=lambda row: row.measured_seconds):
            lines.append(
                f"| {name(row)} | {milliseconds(row.predicted_seconds)} | {milliseconds(row.measured_seconds)} | "
                f"{milliseconds(min(row.seconds))} to {milliseconds(max(row.seconds))} | {row.error:+.0%} | "
                f"{max(row.moved_bytes)} | {'yes' if row.bytes_equal else '**NO**'} | {'picked' if row.picked else ''} |")
        if case.skipped:
            lines += ["", f"Not measured: {case.skipped} plans predicted to be much slower than the pick."]
        for other in case.others:
            alone = summary([other])
            lines += ["", f"Another attempt, which does not count: the machine changed by {percent(other.change)}; "
                          f"{alone['within_25']} of {alone['rows']} plans within 25%, median error {alone['median_error']:.0%}, "
                          f"worst {alone['worst_error']:+.0%}; pick / best {other.regret:.2f}."]
        for strategy, reason in case.refused:
            lines += ["", f"Refused: `{strategy}`: {reason}."]
    return "\n".join(lines) + "\n"


def overview(setups):
    """One row a set-up, and one for all: setups is their cases by name."""
    everything = [case for cases in setups.values() for case in cases]
    lines = ["# Predicted against measured: all set-ups", "",
             "Each row sums up the cases of one set-up (its tables are in the folder of that name). Errors are of the predicted time;",
             f"noise is by how much medians of identical jobs differ; a pick is near if it takes at most {NEAR} times the best measured.",
             *([f"Machine: {steady}."] if (steady := steadiness(everything)) else []), "",
             "| set-up | cases | plans | bytes equal | median error | worst | within 25% | noise, median | noise, worst | picks near | worst pick |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for name, cases in [*setups.items(), ("all", everything)]:
        total = summary(cases)
        lines.append(f"| {name} | {total['cases']} | {total['rows']} | {total['bytes_equal']} | {total['median_error']:.1%} | "
                     f"{total['worst_error']:+.0%} | {total['within_25']} | {total['median_spread']:.1%} | {total['worst_spread']:.0%} | "
                     f"{total['near']} of {total['cases']} | {total['worst_regret']:.2f} |")
    lines += ["", "| strategy | plans | median error | median of error, signed | worst |", "|---|---|---|---|---|"]
    rows = [row for case in everything for row in case.rows]
    for strategy in dict.fromkeys(row.strategy.split(":")[0] for row in rows):
        errors = [row.error for row in rows if row.strategy.split(":")[0] == strategy]
        lines.append(f"| `{strategy}` | {len(errors)} | {statistics.median(map(abs, errors)):.1%} | "
                     f"{statistics.median(errors):+.1%} | {max(errors, key=abs):+.0%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(overview({path.parent.name: list(load(path).values())
                    for path in sorted(pathlib.Path(sys.argv[1]).glob("*/truth.json"))}), end="")
