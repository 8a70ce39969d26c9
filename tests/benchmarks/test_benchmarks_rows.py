"""Rows of the benchmarks: turns, medians, ratios, merging, and the tables made of them."""

import itertools

import pytest

from benchmarks import growth, race, rows, table
from benchmarks.contenders import CONTENDERS, Job
from benchmarks.gpu import tables
from benchmarks.race import Cell, Turns

DOCUMENT = "before\n<!-- benchmarks cpu: begin -->\nold\n<!-- benchmarks cpu: end -->\nafter\n"


def row(contender, seconds, **other):
    return {"part": "steps", "net": "bilici", "width": 1, "batch": 32, "mode": "train",
            "contender": contender, "threads": 2,
            "seconds": seconds, "memory": None} | other


def test_the_ratio_is_to_the_better_pytorch_of_the_same_cell():
    found = rows.with_ratios([
        row("numpy", 3.0, memory=6), row("torch-nchw", 2.0, memory=4),
        row("torch-nhwc", 1.5, memory=8),
        row("numpy", 3.0, mode="predict", memory=6), row("torch-nchw", 4.0, mode="predict"),
        row("numpy", 3.0, threads=1), row("numpy", 3.0, batch=128),
        row("numpy", 3.0, net="resnet18"),
        row("numpy", 3.0, width=2), row("numpy", 3.0, part="growth"),
    ])
    assert [r.get("ratio") for r in found] == [2.0, 2.0 / 1.5, 1.0, 0.75, 1.0, *[None] * 5]
    assert [r.get("memory_ratio") for r in found] == [1.5, 1.0, 2.0, *[None] * 7]


def test_rows_measured_again_replace_the_old_ones():
    old = [row("numpy", 1.0), row("numpy", 2.0, batch=8)]
    new = [row("numpy", 3.0), row("numpy", 4.0, part="growth"), row("numpy", 5.0, threads=1)]
    assert rows.merge(old, new) == [new[0], *old[1:], *new[1:]]


def test_what_is_above_pytorch_is_said_and_that_nothing_is():
    slower = rows.with_ratios([row("numba", 3.0, memory=1), row("torch-nchw", 2.0, memory=2),
                               row("numba", 3.0, batch=1, mode="predict"),
                               row("torch-nhwc", 2.9, batch=1, mode="predict")])
    assert rows.above_pytorch(slower) == [
        "numba above 1.0: bilici batch 1 predict threads 2: 1.03 times the time of the better "
        "PyTorch",
        "numba above 1.0: bilici batch 32 train threads 2: 1.50 times the time of the better "
        "PyTorch",
        "numba: none of 1 lines above 1.0 times the memory of the better PyTorch"]
    assert rows.above_pytorch(rows.with_ratios([row("numba", 3.0)])) == ["numba: no line to "
                                                                         "compare with PyTorch"]


def test_rounds_that_differ_too_much_are_named():
    assert rows.disturbed([row("numpy", 1.0, spread=1.2),
                           row("numpy", 1.0, spread=1.5, width=2, part="growth")]) == [
        "rounds differ 1.50 times: growth: bilici width 2 batch 32 train threads 2, numpy"]


def test_contenders_take_turns_and_the_median_counts(monkeypatch):
    order, times = [], {"numpy": iter([5.0, 1.0, 3.0]), "torch-nchw": iter([2.0, 9.0, 1.0])}
    memory = itertools.count(7)

    def answer(task, job, say):
        order.append((job.net, job.threads, job.contender))
        found = {"batch": 32, "mode": "train", "seconds": next(times[job.contender]),
                 "memory": next(memory), "libraries": None}
        return {"rows": [found], "about": {"kernels": job.contender}}
    monkeypatch.setattr(race, "ask", answer)
    turns = Turns(["numpy", "torch-nchw"], 3)
    samples = race.race("steps", [Cell("bilici", (32,), 2)], turns, Job("cpu", "", 9),
                        lambda text: None)
    assert samples.rows() == [
        row("numpy", 3.0, spread=5.0, rounds=3, memory=7, libraries=None),
        row("torch-nchw", 2.0, spread=9.0, rounds=3, memory=8, libraries=None)]
    assert [contender for _, _, contender in order] == ["numpy", "torch-nchw", "torch-nchw",
                                                        "numpy", "numpy", "torch-nchw"]
    assert {threads for _, threads, _ in order} == {2}
    assert samples.about == {name: {"kernels": name} for name in times}


def test_who_breaks_down_costs_the_others_nothing(monkeypatch):
    def answer(task, job, say):
        if job.contender == "numba":
            raise race.ContenderError("numba: it fell over")
        found = {"batch": 32, "mode": "train", "seconds": 2.0, "memory": None, "libraries": None}
        return {"rows": [found], "about": {}}
    monkeypatch.setattr(race, "ask", answer)
    turns, said = Turns(["numba", "numpy"], 2), []
    samples = race.race("steps", [Cell("bilici", (32,), 2)], turns, Job("cpu", "", 2), said.append)
    assert [(r["contender"], r["rounds"]) for r in samples.rows()] == [("numpy", 2)]
    assert turns.broken == ["numba: it fell over"] * 2 and said.count("numba: it fell over") == 2


def test_no_round_begins_that_would_end_too_late(monkeypatch):
    clock = itertools.count(0, 10)  # each look at the clock is ten seconds later
    monkeypatch.setattr(race.time, "monotonic", lambda: next(clock))
    said = []
    assert ([number for number, _ in Turns(["numpy"], 9, deadline=45)(said.append)]
            == ["round 1/9", "round 2/9"])
    assert said == ["no time left for round 3 of 9: see --minutes"]
    assert [order for _, order in Turns(["a", "b"], 2)(said.append)] == [["a", "b"], ["b", "a"]]


def test_every_contender_has_a_column():
    assert set(rows.ORDER) == set(CONTENDERS["cpu"]) and set(tables.ORDER) >= set(CONTENDERS["gpu"])


# --- tables ---------------------------------------------------------------------------------------

def test_the_table_of_steps():
    found = (rows.with_ratios([row("numpy", 1.5, mode="predict"), row("torch-nchw", 0.01),
                               row("numpy", 0.0123)]))
    assert table.step_table(found) == [["net", "batch", "mode", "threads", "numpy", "torch-nchw"],
                                       ["bilici", "32", "train", "2", "12.3 (1.23)", "10.0 (1.00)"],
                                       ["bilici", "32", "predict", "2", "1500", ""]]
    assert table.step_table(found, times=False)[1:] == [["bilici", "32", "train", "2", "1.23",
                                                         "1.00"],
                                                        ["bilici", "32", "predict", "2", "", ""]]
    assert table.as_text([["net", "ms"], ["bilici", "1"]]) == "net     ms\nbilici  1"
    assert (table.as_markdown([["net", "ms"], ["bilici", "1"]]) == "| net | ms |\n|---|---|\n| "
                                                                   "bilici | 1 |")
    assert [table.milliseconds(s) for s in (1.2345e-5, 1.2345e-3, 9.999e-3, 0.012345, 0.99999,
                                            12.345)] == [
        "0.012", "1.23", "10.0", "12.3", "1000", "12300"]


def test_the_table_of_memory_has_what_the_system_told():
    found = rows.with_ratios([row("numpy", 1.0, memory=3 * 10**6),
                              row("torch-nchw", 1.0, memory=2 * 10**6),
                              row("numpy", 1.0, batch=1)])
    assert table.memory_table(found) == [["net", "batch", "mode", "threads", "numpy", "torch-nchw"],
                                         ["bilici", "32", "train", "2", "3.0 (1.50)", "2.0 (1.00)"]]
    assert (table.memory_table(rows.with_ratios([row("numpy", 1.0)]))
            == [["net", "batch", "mode", "threads"]])


def test_the_table_of_convolutions():
    found = [{"part": "convolutions", "convolution": "8->8 5x5 @24", "batch": 32, "threads": 1,
              "contender": contender,
              "direction": direction, "flops_per_second": rate, "of_peak": rate / 2e11}
             for direction, rate in (("filters", 1e11), ("forward", 5e10), ("input", 2.5e11))
             for contender in ("numba", "numpy")]
    assert table.convolution_table(found) == [
        ["convolution", "batch", "threads", "numpy forward", "numpy input", "numpy filters",
         "numba forward", "numba input",
         "numba filters"],
        ["8->8 5x5 @24", "32", "1", *["50 (25 %)", "250 (125 %)", "100 (50 %)"] * 2]]
    assert table.convolution_table(found, rates=False)[1][3:] == ["25 %", "125 %", "50 %"] * 2
    assert table.convolution_table([found[0] | {"of_peak": None}])[1][3:] == ["100"]


def test_the_tables_of_growth():
    found = [row(contender, seconds, part="growth", batch=batch, width=width)
             for batch, width, numpy, nchw, nhwc in ((1, 1, 2.0, 1.0, 3.0), (32, 1, 64.0, 9.0, 8.0),
                                                     (32, 2, 256.0, 32.0, 99.0))
             for contender, seconds in (("numpy", numpy), ("torch-nchw", nchw),
                                        ("torch-nhwc", nhwc))]
    assert growth.growth_tables(found) == [
        [["net", "threads", "contender", "batch 1", "batch 32", "exponent"],
         ["bilici", "2", "PyTorch", "1.00", "8.00", "0.60"],
         ["bilici", "2", "numpy", "1.00", "32.0", "1.00"]],
        [["net", "threads", "contender", "width 1", "width 2", "exponent"],
         ["bilici", "2", "PyTorch", "1.00", "4.00", "2.00"],
         ["bilici", "2", "numpy", "1.00", "4.00", "2.00"]]]
    assert growth.growth_tables([row("numpy", 1.0)]) == []


@pytest.mark.parametrize("document", ["", DOCUMENT * 2, "<!-- benchmarks cpu: end --> <!-- "
                                                        "benchmarks cpu: begin -->",
                                      DOCUMENT.replace("cpu", "gpu")])
def test_markers_that_are_not_there(document):
    with pytest.raises(ValueError, match="--markdown: expected one line .* Received: page.md "
                                         "without them"):
        table.between_markers(document, "cpu", "new", "page.md")
