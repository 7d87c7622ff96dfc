"""plait study as users run it: cli_study_test.py PLAIT MPIEXEC. Figures are compared with formulas worked out here."""

import csv
import json
import pathlib
import tempfile
import xml.etree.ElementTree

from cli import run

COLUMNS = ["scaling", "strategy", "plan", "layout", "mask", "heads", "kv_heads", "ranks", "tokens", "source", "seconds",
           "predicted_seconds", "tflops_per_rank", "efficiency", "bytes_max", "exposed_share", "slots_bytes", "rounds",
           "refused"]


def rows_of(words, ranks=None):
    return json.loads(run(["study", *words, "--json", "-"], ranks).stdout)["rows"]


def close(a, b, relative=1e-9):
    return abs(a - b) <= relative * max(abs(a), abs(b))


def planned(row, *more):
    """What plait plan says of the same point."""
    words = ["plan", "--tokens", row["tokens"], "--kv-tokens", row["kv_tokens"], "--heads", row["heads"], "--kv-heads",
             row["kv_heads"], "--dim", row["dim"], "--dtype", row["dtype"], "--ranks", row["ranks"], "--strategy",
             row["strategy"], "--layout", row["layout"], *more, "--json", "-"]
    return json.loads(run(words).stdout)


def pairs(row):
    return row["tokens"] * (row["tokens"] + 1) / 2 if row["mask"] == "causal" else row["tokens"] * row["kv_tokens"]


def check_figures(row):
    flops = 4 * pairs(row) * row["heads"] * row["dim"]
    assert close(row["tflops_per_rank"], flops / row["seconds"] / row["ranks"] / 1e12), row
    assert close(row["efficiency"], row["one_rank_seconds"] / (row["ranks"] * row["seconds"])), row
    assert 0 <= row["exposed_share"] <= 1 and row["refused"] is None, row
    shares = [row[f"predicted_{part}_share"] for part in ("fold", "merge", "node", "network", "latency")]
    assert min(shares) >= 0 and close(sum(shares), 1.0, 1e-6), row


def check_strong():
    words = ["--tokens", 2048, "--heads", "8:2,1:1", "--dim", 32, "--dtype", "f32", "--ranks", "1,2..8",
             "--strategies", "ring,passq", "--layout", "contiguous"]
    rows = rows_of(words)
    assert len(rows) == 4 * 2 * 2
    assert [(row["ranks"], row["heads"], row["strategy"]) for row in rows] == [
        (p, h, s) for p in (1, 2, 4, 8) for h in (8, 1) for s in ("ring", "passq")]
    for row in rows:
        assert list(row)[: len(COLUMNS)] == COLUMNS and row["source"] == "simulated" and row["scaling"] == "strong"
        assert row["seconds"] == row["predicted_seconds"] and row["seconds_min"] is None
        check_figures(row)
        plan = planned(row)
        assert close(row["seconds"], plan["seconds"]["predicted"]), (row, plan)
        assert row["slots_bytes"] == plan["slots_bytes"] and row["bytes_max"] == max(plan["bytes"]["planned"])
        assert close(row["exposed_share"], plan["exposed_comm_seconds"] / plan["seconds"]["predicted"])
        ranks, heads, kv_heads = row["ranks"], row["heads"], row["kv_heads"]
        if row["strategy"] == "ring":
            assert row["bytes_max"] == (ranks - 1) * 2 * 2048 * kv_heads * 32 * 4 // ranks, row
        else:
            assert row["bytes_max"] == (ranks - 1) * 2048 * heads * (32 * 4 + (32 + 2) * 4) // ranks, row
        alone = next(r for r in rows if r["ranks"] == 1 and r["heads"] == heads)
        assert close(row["one_rank_seconds"], alone["seconds"])


def check_weak():
    rows = rows_of(["--tokens-per-rank", 512, "--causal", "--heads", "2:1", "--ranks", "1,3,6", "--strategies", "ring"])
    assert [(row["ranks"], row["tokens"]) for row in rows] == [(1, 512), (3, 1536), (6, 3072)]
    for row in rows:
        check_figures(row)
        plan = planned({**row, "tokens": row["tokens"]}, "--causal")
        assert close(row["seconds"], plan["seconds"]["predicted"])
        alone = planned({**row, "ranks": 1, "layout": "auto"}, "--causal")
        assert close(row["one_rank_seconds"], alone["seconds"]["predicted"])


def cell(text, like):
    """The value that a CSV cell's text stands for, read as the type of `like`: the same double may be spelt in several ways."""
    if like is None:
        return text or None
    if isinstance(like, bool):
        return {"true": True, "false": False}[text]
    return type(like)(text)


def check_measured(folder):
    table = f"{folder}/study.csv"
    words = ["--tokens", 1024, "--heads", "2:1", "--dim", 32, "--causal", "--ranks", "1..4", "--repeat", 3]
    rows = rows_of([*words, "--csv", table, "--plots", f"{folder}/measured"], ranks=2)
    refused = [row for row in rows if row["refused"] is not None]
    assert all(row["seconds"] is None and row["plan"] is None for row in refused)
    best = {}
    for row in rows:
        assert row["source"] == ("measured" if row["ranks"] <= 2 else "simulated"), row
        if row in refused:
            continue
        check_figures(row)
        assert row["predicted_seconds"] > 0
        if row["source"] == "measured":
            assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
            best[row["ranks"]] = min(best.get(row["ranks"], 1e9), row["seconds"])
    for row in rows:
        if row["source"] == "measured" and row not in refused:
            assert close(row["one_rank_seconds"], best[1]), (row, best)
    with open(table, newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows):
        assert list(line) == list(row)
        for column, value in row.items():
            assert cell(line[column], value) == value, (column, line[column], value)
    return rows


def check_refused():
    """A strategy that cannot do a problem is a row with the reason, beside the rows of those that can."""
    rows = rows_of(["--tokens", 64, "--heads", "1:1,4:4", "--ranks", "4", "--strategies", "ring,ulysses,mesh:1x3"])
    refused = [(row["strategy"], row["heads"]) for row in rows if row["refused"]]
    assert refused == [("ulysses", 1), ("mesh:1x3", 1), ("mesh:1x3", 4)], refused
    for row in rows:
        empty = [column for column in ("plan", "seconds", "efficiency", "bytes_max", "rounds") if row[column] is None]
        assert len(empty) == (5 if row["refused"] else 0), row


def texts_of(picture):
    """Boxes (left, top, right, bottom) of the horizontal texts, judged by their size."""
    boxes = []
    for text in xml.etree.ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text"):
        if "transform" in text.attrib:
            continue
        size, x, y = (float(text.get(key)) for key in ("font-size", "x", "y"))
        wide = 0.5 * size * len(text.text)
        left = x - {"start": 0, "middle": wide / 2, "end": wide}[text.get("text-anchor")]
        boxes.append((left, y - 0.7 * size, left + wide, y, text.text))
    return boxes


def check_plots(folder, rows):
    pictures = sorted(path.name for path in pathlib.Path(folder, "measured").iterdir())
    assert pictures == ["bytes.svg", "efficiency.svg", "exposed.svg", "time.svg", "timeline.svg"], pictures
    for name in pictures:
        path = pathlib.Path(folder, "measured", name)
        root = xml.etree.ElementTree.parse(path).getroot()
        width, height = float(root.get("width")), float(root.get("height"))
        boxes = texts_of(path)
        for i, a in enumerate(boxes):
            assert a[0] >= 0 and a[2] <= width and a[1] >= 0 and a[3] <= height, (name, a)
            for b in boxes[i + 1 :]:
                apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
                assert apart, f"{name}: {a[4]} and {b[4]} overlap"
    svg = pathlib.Path(folder, "measured", "time.svg").read_text()
    figures = [row for row in rows if row["refused"] is None]
    marks = svg.count("<circle") + svg.count("<polygon")
    measured = sum(row["source"] == "measured" for row in figures)
    names = len({row["strategy"] for row in figures})
    # A mark per simulated or predicted point, one more where it was measured, one per name.
    assert marks == len(figures) + measured + names, (marks, len(figures), measured, names)
    hollow = svg.count('fill="#ffffff" stroke=')
    assert hollow == len(figures) + names, hollow
    assert "measured" in pathlib.Path(folder, "measured", "timeline.svg").read_text()
    assert not [path for path in pathlib.Path(folder).rglob("*.part")]


def check_errors(folder):
    for words, message in (
        (["--tokens", 8], "--ranks is missing"),
        (["--ranks", 4], "--tokens N (strong scaling"),
        (["--tokens", 8, "--ranks", "8..2"], "--ranks 8..2: a range goes upwards"),
        (["--tokens", 8, "--ranks", 2, "--heads", "8:3"], "--heads 8:3"),
        (["--tokens", 8, "--ranks", 2, "--strategies", "rnig"], "--strategies 'rnig'"),
        (["--tokens", 8, "--ranks", 2, "--documents", "3,4"], "--documents: the lengths sum to 7"),
        (["--tokens", 8, "--ranks", 2, "--repeat", 0], "--repeat 0"),
    ):
        for ranks in (None, 2):
            said = run(["study", *words], ranks, code=2).stderr
            assert sum(message in line for line in said.splitlines()) == 1, (message, said)
    blocker = pathlib.Path(folder, "file")
    blocker.write_text("")
    said = run(["study", "--tokens", 64, "--ranks", 2, "--plots", blocker / "x"], code=1).stderr
    assert "--plots" in said, said


with tempfile.TemporaryDirectory() as scratch:
    check_strong()
    check_weak()
    check_refused()
    check_plots(scratch, check_measured(scratch))
    check_errors(scratch)
