"""The GPU's benchmarks as a command, without a GPU: processes, parts, rows, tables, and the first
minutes on a GPU."""

import json
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiers import full

from benchmarks import cli, race
from benchmarks.contenders import CONTENDERS, Job
from benchmarks.gpu import (
    bandwidth,
    check,
    command,
    compiling,
    parts,
    products,
    rows,
    small_run,
    steps,
    tables,
)
from xpnet import get_backend

DOCUMENT = "before\n<!-- benchmarks gpu: begin -->\nold\n<!-- benchmarks gpu: end -->\nafter\n"
ABOUT = {"versions": {"CuPy": "0"}, "kernels": "k", "device": "NVIDIA H200"}
CPU = Job("cpu", "numpy", 1, seconds=0.0)


def silent(text):
    pass


# --- processes ------------------------------------------------------------------------------------

def test_lines_come_as_they_are_made_and_outlast_a_process_that_breaks_down(monkeypatch):
    code = "print(1, flush=True); print(2, flush=True); raise SystemExit('it fell over')"
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", code))
    seen = []
    with pytest.raises(race.ContenderError, match="exit status 1, and on stderr:\nit fell over"):
        for answer in race.stream("steps", CPU, silent, 60):
            seen.append(answer)
    assert seen == [1, 2]


def test_a_process_that_takes_too_long_is_ended(monkeypatch):
    """The timer is stood in for by one that rings as soon as there is an answer."""
    class Timer:
        def __init__(self, seconds, ring):
            self.seconds, self.ring = seconds, ring
            timers.append(self)

        def start(self):
            pass
        cancel = start
    timers, seen = [], []
    monkeypatch.setattr(race.threading, "Timer", Timer)
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", "import time; print(1, "
                                                                "flush=True); time.sleep(1000)"))
    with pytest.raises(race.ContenderError, match="expected its process to finish the task steps "
                                                  "within 7 s. Received: no end"):
        for answer in race.stream("steps", CPU, silent, 7):
            seen.append(answer)
            timers[0].ring()
    assert seen == [1] and timers[0].seconds == 7


def test_lines_that_are_no_json_are_an_error(monkeypatch):
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", "print('hello')"))
    with pytest.raises(race.ContenderError, match="numpy: expected lines of JSON"):
        list(race.stream("steps", CPU, silent, 60))


def test_what_a_process_says_comes_with_its_name(monkeypatch):
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", "import sys; print(1); "
                                                                "print('careful', "
                                                                "file=sys.stderr)"))
    said = []
    assert list(race.stream("steps", CPU, said.append, 60)) == [1] and said == ["numpy: careful"]


def test_steps_in_real_processes():
    """One network on NumPy, asked for as a GPU's part is."""
    setting = parts.Setting(["numpy"], 2, time.monotonic() + 100, CPU, [], silent)
    *_, found = parts.steps(setting, [("numpy_cnn", 1)])
    row, = found
    assert (row["rounds"] == 2 and row["seconds"] > 0 and row["tf32"] == "never"
            and "NumPy" in row["versions"])
    assert setting.broken == []


def test_kernels_are_shared_among_processes():
    shares = [compiling.share(number, 3, without=compiling.OTHER_TYPES) for number in range(3)]
    everything = [kernel for share in shares for kernel in share]
    assert (len(set(everything)) == len(everything) > 30
            and max(map(len, shares)) - min(map(len, shares)) <= 1)
    assert not any("half" in kernel or "double" in kernel for _, kernel in everything)
    assert [answer["compiled"] for answer in compiling.measure(CPU)] == [len(everything)]
    assert set(everything) < set(compiling.share(0, 1))


def test_after_a_failure_another_process_goes_on_with_the_next_item(monkeypatch):
    """Item 1 of three fails, then the last one; a process that fails before its first item is not
    started again."""
    def answers(task, job, say, timeout):
        started.append(job.first)
        if task == "mnist":
            raise race.ContenderError("not even the import works")
        for number in range(job.first, 3):
            yield {"item": number}
            if number != 0:
                raise race.ContenderError(f"item {number} fails")
            yield {"row": number}
    started = []
    monkeypatch.setattr(parts, "stream", answers)
    setting = parts.Setting(["cupy"], 1, time.monotonic() + 100, CPU, [], silent)
    assert list(setting.answers("bandwidth", CPU, setting.deadline)) == [{"row": 0}]
    assert started == [0, 2, 3] and setting.broken == ["item 1 fails", "item 2 fails"]
    assert list(setting.answers("mnist", CPU, setting.deadline)) == []
    assert started == [0, 2, 3, 0]


# --- the command ----------------------------------------------------------------------------------

def answers(task, job, say, timeout):
    """What processes would answer, measured by nobody; "torch-graph" breaks down in the middle."""
    yield from () if task == "compile" else ({"about": ABOUT},)
    if task == "compile":
        yield {"compiled": 5, "failed": []}
    elif task == "steps":
        for net, batch in job.cells:
            if job.contender == "torch-graph" and net == "bilici":
                raise race.ContenderError("torch-graph: it fell over")
            seconds = {"cupy": 0.3, "cupy-eager": 2.0, "torch-nchw": 1.5, "torch-nhwc": 1.0,
                       "torch-graph": 0.5}[job.contender]
            yield {"row": {"net": net, "batch": batch, "seconds": seconds * batch, "memory": 10**8,
                           "reserved": 2 * 10**8,
                           "predicted": 9 * 10**7 if job.contender == "cupy" else None,
                           "warning": "not captured" if job.contender == "cupy" and net == "bilici"
                           else None}}
    elif task == "bandwidth":
        for kernel, megabytes, share in (("im2col", 256, 0.5), ("im2col", 16, 0.5),
                                         ("sgd", 256, 0.9)):
            yield {"row": {"kernel": kernel, "megabytes": megabytes, "shape": [1], "bytes": 9,
                           "seconds": 1.0,
                           "bytes_per_second": 4e12 * share, "copy_bytes_per_second": 4e12,
                           "of_copy": share}}
    elif task == "plans":
        yield {"row": {"key": "gemm 1x2x3", "usual": [128, 128, 1], "best": [64, 64, 1],
                       "seconds": 2e-6, "usual_seconds": 3e-6,
                       "architecture": "sm_90", "ways": []}}
    elif task == "products":
        yield {"row": {"product": "6x5x4", "batch": 1, "direction": "forward", "operations": 240,
                       "seconds": 2.0 if job.contender == "torch" else 1.0,
                       "flops_per_second": 1e13}}
    else:
        yield {"row": {"net": "bilici", "batch": 128, "goal": 0.99, "accuracy": 0.991, "epochs": 2,
                       "seconds": 4.0}}


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    monkeypatch.setattr(parts, "stream", answers)
    monkeypatch.setattr(race, "ask", lambda task, job, say: None)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "DATA", tmp_path)
    return tmp_path


def test_the_whole_command(pretended, capsys):
    page = pretended / "page.md"
    page.write_text(DOCUMENT)
    assert cli.main(["gpu", "--rounds", "1", "--nets", "numpy_cnn", "bilici", "--markdown",
                     str(page)]) == 2
    file, = (pretended / "results").glob("*.json")
    assert file.name.startswith("nvidia-h200-20") and file.name.endswith(".json")
    found = json.loads(file.read_text())
    counts = {}
    for row in found:
        assert (row["device"] == "NVIDIA H200" and row["date"].endswith("+00:00")
                and row["versions"] == {"CuPy": "0"})
        counts[row["part"]] = counts.get(row["part"], 0) + 1
    # torch-graph broke down at the second net
    assert counts == {"steps": 4 * 4 + 2, "bandwidth": 3, "products": 4, "mnist": 5}
    ours = next(row for row in found if row["part"] == "steps" and row["contender"] == "cupy")
    assert (ours["of_eager"], ours["of_graph"],
            ours["targets"]) == (0.3, 0.6, {"of_eager": 0.25, "of_graph": 0.8})

    printed = capsys.readouterr()
    assert "1 processes failed, so rows may be missing:\ntorch-graph: it fell over" in printed.err
    assert "compiled" in printed.err
    content = page.read_text()
    assert content.startswith("before\n") and content.endswith("after\n") and "old" not in content
    assert "| numpy_cnn | 32 | convolutions | 9600 | 64000 | 48000 | 32000 | 16000 | " \
           "0.30 (target 0.25, missed 1.20 times) | 0.60 |" in content
    assert ("| numpy_cnn | 32 | convolutions | 100 (200) | 100 (200) | 100 (200) | 100 (200) | 100 "
            "(200) | 90 |" in content)
    assert ("| im2col | 2000 (50 %) | 2000 (50 %) | 1.70 times |" in content
            and "| a copy | 4000 | 4000 |  |" in content)
    assert "| 6x5x4 | 1 | forward | 10 (0.50) | 10 | 10 (0.50) | 10 |" in content
    assert "| mnist | bilici | 128 | cupy | 99 % | 99.10 % | 2 | 4.00 | 1.00 | 1.00 |" in content
    assert "- cupy, bilici 32: not captured." in content
    assert "missed 1.70 times: bandwidth im2col 256: of_copy 0.50, target 0.85" in printed.out


def test_plans_go_into_a_file_beside_the_rows(pretended, capsys):
    assert cli.main(["gpu", "--parts", "plans", "--json", str(pretended / "rows.json")]) == 0
    assert json.loads((pretended / "rows.plans").read_text())["sm_90"]["gemm 1x2x3"] == [64, 64, 1]
    printed = capsys.readouterr().out
    assert "gemm 1x2x3  [128, 128, 1]  [64, 64, 1]  3.0       2.0      0.67" in printed


def test_tables_of_the_results_and_none_of_none(pretended, capsys):
    page = pretended / "page.md"
    page.write_text(DOCUMENT)
    assert cli.main(["gpu", "--tables-only", "--markdown", str(page)]) == 0
    assert "Not measured yet" in page.read_text() and "no rows" in capsys.readouterr().err
    assert cli.main(["gpu", "--parts", "bandwidth", "--contenders", "cupy"]) == 0
    assert cli.main(["gpu", "--tables-only", "--markdown", str(page)]) == 0
    assert "| im2col | 2000 (50 %)" in page.read_text() and "NVIDIA H200" in page.read_text()


def test_the_newest_file_of_each_gpu_counts(pretended):
    def write(name, device, share):
        row = list(answers("bandwidth", CPU, silent, 1))[1]["row"]
        row |= {"part": "bandwidth", "date": "d", "device": device, "of_copy": share}
        (pretended / "results").mkdir(exist_ok=True)
        (pretended / "results" / name).write_text(json.dumps([row]))
    for name, device, share in (("a-2026-01-02.json", "A", 0.2), ("a-2026-01-01.json", "A", 0.1),
                                ("b-2025-01-01.json", "B", 0.3)):
        write(name, device, share)
    found = command.old_rows(SimpleNamespace(json=None))
    assert [(row["device"], row["of_copy"]) for row in found] == [("A", 0.2), ("B", 0.3)]


def test_rows_are_written_with_each_answer_and_merged(pretended, monkeypatch):
    file = pretended / "rows.json"
    assert (cli.main(["gpu", "--parts", "bandwidth", "--contenders", "cupy", "--json", str(file)])
            == 0)

    def stopped(task, job, say, timeout):
        for number, answer in enumerate(answers(task, job, say, timeout)):
            if number == 2:
                raise KeyboardInterrupt
            yield answer
    monkeypatch.setattr(parts, "stream", stopped)
    assert cli.main(["gpu", "--parts", "products", "--contenders", "cupy", "torch-nchw", "--json",
                     str(file), "--merge"]) == 0
    assert len(json.loads(file.read_text())) == 3 + 4
    assert cli.main(["gpu", "--parts", "bandwidth", "--contenders", "cupy", "--json", str(file),
                     "--merge"]) == 130
    assert len(json.loads(file.read_text())) == 3 + 4
    monkeypatch.setattr(parts, "stream", answers)
    assert (cli.main(["gpu", "--parts", "bandwidth", "--contenders", "cupy", "--json", str(file)])
            == 0)
    assert len(json.loads(file.read_text())) == 3


def test_parts_stop_when_there_is_no_time(pretended, capsys):
    assert cli.main(["gpu", "--minutes", "0", "--contenders", "cupy"]) == 0
    error = capsys.readouterr().err
    assert "steps: no time left for cupy: see --minutes" in error and "no rows" in error


def test_everything_that_is_done_without_being_asked_for_ends_within_nine_minutes():
    assert (sum(parts.BUDGET[part] for part in ("compile", "steps", "bandwidth", "products",
                                                "mnist")) <= 9 * 60)
    assert set(parts.BUDGET) == {"compile", *rows.PARTS} and max(parts.BUDGET.values()) < 9 * 60


@pytest.mark.parametrize("arguments, message", [
    (["--merge"], "--merge: expected --json FILE"),
    (["--json", "none/x.json"], "--json: expected a file in a folder that exists."),
    (["--data", "none"], "--data: expected a folder. Received: none"),
    (["--markdown", "none.md"], "none.md"),
    (["--tables-only", "--json", "other.json"], "expected rows that this version of the GPU's "
                                                "benchmarks wrote."),
])
def test_files_are_checked_before_any_work(arguments, message, pretended, monkeypatch, capsys):
    monkeypatch.chdir(pretended)
    (pretended / "other.json").write_text('[{"part": "steps", "date": "d", "device": "x"}]')
    assert cli.main(["gpu", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_contenders_that_cannot_run(pretended, monkeypatch, capsys):
    monkeypatch.setattr(race, "ask", lambda task, job, say: "not here" if job.contender != "cupy"
                        else None)
    assert cli.main(["gpu", "--contenders", "cupy", "torch-nhwc"]) == 2
    assert ("expected contenders that can run here. Received: torch-nhwc: not here"
            in capsys.readouterr().err)
    assert cli.main(["gpu", "--parts", "bandwidth"]) == 0
    assert "left out:\n  torch-nchw: not here" in capsys.readouterr().err


def test_pictures_that_are_not_there_are_said(pretended, monkeypatch, capsys):
    monkeypatch.setattr(command, "DATA", pretended / "none")
    monkeypatch.delenv("XPNET_HOME", raising=False)
    assert cli.main(["gpu", "--parts", "mnist", "cifar"]) == 0
    error = capsys.readouterr().err
    assert ("mnist: left out: expected a folder with its images" in error and "cifar: left "
                                                                              "out" in error)


def test_a_process_that_is_late_begins_nothing_new(monkeypatch):
    late = Job("cpu", "numpy", 1, cells=(("numpy_cnn", 1),), started=time.time() - 10, limit=5)
    assert list(steps.measure(late)) == [] and len(list(products.measure(late))) == 1
    monkeypatch.setattr(bandwidth, "MEGABYTES", (0.01, 0.02))
    assert len(list(bandwidth.measure(late))) == 1


# --- the first minutes ----------------------------------------------------------------------------

def test_a_step_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    python = sys.executable
    monkeypatch.setattr(check, "commands", lambda folder, more: {
        "machine": [python, "-c", "print('a GPU'); raise SystemExit(3)"],
        "tests": ["no-such-program"],
        "memcheck": [python, "-c", "import os; print(os.environ['XPNET_REQUIRE_GPU'])"],
        "racecheck": ["compute-sanitizer"], "bench": [python, "-c", f"print({list(more)})"]})
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    steps = [step for step in check.STEPS if step not in ("compile", "training")]
    assert check.main([str(tmp_path / "out"), "--steps", *steps, "--", "--parts", "cifar"]) == 1
    summary = (tmp_path / "out" / "summary.log").read_text()
    for text in (f"numpy {np.__version__}", "machine: exit status 3", "tests: exit status 127",
                 "memcheck: passed", "racecheck: left out, compute-sanitizer is not installed",
                 "bench: passed"):
        assert text in summary
    assert (tmp_path / "out" / "bench.log").read_text() == "['--parts', 'cifar']\n"
    assert (tmp_path / "out" / "memcheck.log").read_text() == "1\n"
    assert "a GPU" in capsys.readouterr().out               # the end of what failed


def test_a_step_whose_time_is_over_is_ended_with_all_its_processes(tmp_path):
    code = ("import subprocess, sys; print('x'); subprocess.run([sys.executable, '-c', 'import "
            "time; time.sleep(1000)'])")
    log = tmp_path / "log"
    assert check.run([sys.executable, "-c", code], log, 0.5) == check.FAILED
    assert "ended after" in log.read_text()


def test_tests_whose_time_is_over_report_their_failures(tmp_path):
    """pytest does so when it is interrupted, also where the check itself ignores Ctrl-C, as
    programs do that a shell starts in the background."""
    code = ("import time; print('begun', flush=True)\ntry: time.sleep(1000)\n"
            "except KeyboardInterrupt: print('2 failed')")
    log, before = tmp_path / "log", signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert check.run([sys.executable, "-c", code, "pytest"], log, 2.0) == check.FAILED
    finally:
        signal.signal(signal.SIGINT, before)
    assert "2 failed\nended after" in log.read_text()


def test_the_steps_run_what_needs_a_gpu():
    todo = check.commands(Path("/out"), ["--minutes", "3"])
    assert (tuple(todo) == check.STEPS
            and todo["bench"][-4:] == ["--json", "/out/rows.json", "--minutes", "3"])
    assert "gpu" in todo["tests"] and todo["compile"][-1] == "benchmarks.gpu.compiling"
    assert all((Path(race.ROOT) / file).is_file() for file in check.TRAINING)
    assert todo["training"][-2:] == list(check.TRAINING)


@full
def test_the_small_run_uses_every_layer_with_kernels_of_its_own(capsys):
    losses = small_run.train(get_backend("numpy"))
    assert (all(eager == captured and np.isfinite(eager).all()
                for eager, captured in losses.values()))
    assert "mixed: " in capsys.readouterr().out


# --- comparisons and tables -----------------------------------------------------------------------

def step(contender, seconds, net="numpy_cnn", batch=32, **other):
    return {"part": "steps", "net": net, "batch": batch, "tf32": "never", "contender": contender,
            "seconds": seconds,
            "memory": None, "reserved": None, "predicted": None} | other


def test_ours_is_compared_with_pytorch_at_the_same():
    found = rows.compared([step("cupy", 1.0), step("torch-nchw", 2.0), step("torch-nhwc", 4.0),
                           step("torch-graph", 1.0, batch=128), step("cupy", 9.0, tf32="always"),
                           step("cupy-eager", 3.0),
                           step("cupy", 4.0, net="resnet50")])
    assert [row.get("of_eager") for row in found] == [0.5, None, None, None, None, 1.5, None]
    assert [row.get("of_graph") for row in found] == [None] * 7
    assert [rows.gap(row, "of_eager") for row in found] == [2.0, *[None] * 6]
    assert found[6]["targets"] == {"of_eager": 1.0} and found[5]["targets"] == {}


def test_a_gap_is_how_far_a_figure_is_past_its_target():
    assert rows.gap({"of_copy": 0.5, "targets": {"of_copy": 0.75}}, "of_copy") == 1.5
    assert rows.gap({"of_copy": 0.8, "targets": {"of_copy": 0.75}}, "of_copy") is None
    assert rows.gap({"of_eager": 0.5, "targets": {"of_eager": 0.25}}, "of_eager") == 2
    assert rows.gap({"of_eager": None, "targets": {"of_eager": 0.25}}, "of_eager") is None


def test_what_is_missed_is_said_and_that_nothing_is():
    assert (tables.missed([]) == tables.missed(rows.compared([step("cupy", 1.0)]))
            == ["no target was measured"])
    reached = rows.compared([step("cupy", 1.0), step("torch-nchw", 9.0)])
    assert tables.missed(reached) == ["every measured target is reached"]


def test_names_of_files():
    assert (command.slug("NVIDIA H200") == "nvidia-h200" and command.slug("Tesla V100-SXM2")
            == "tesla-v100-sxm2")
    assert set(CONTENDERS["gpu"]) < set(tables.ORDER)
