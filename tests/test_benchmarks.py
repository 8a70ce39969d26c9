"""The benchmarks: the command, rows, ratios, tables and errors. test_benchmarks_torch.py compares the networks."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import bandwidth, cli, contenders, race, table, worker
from benchmarks.contenders import Job
from benchmarks.xpnet_side import Xpnet, cuda_version
from xpnet import BackendError, get_backend

KEYS = ["net", "batch", "mode", "contender", "threads", "seconds", "ratio"]
TINY = ["--nets", "numpy_cnn", "--batches", "2", "--rounds", "1", "--seconds", "0"]
DOCUMENT = "before\n<!-- benchmarks cpu: begin -->\nold\n<!-- benchmarks cpu: end -->\nafter\n"


def row(contender, seconds, **other):
    return {"net": "bilici", "batch": 32, "mode": "train", "contender": contender, "threads": 2, "seconds": seconds} | other


# --- the command, end to end ------------------------------------------------------------------------------------------

def test_the_command_measures_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    rows_file, document = tmp_path / "rows.json", tmp_path / "page.md"
    document.write_text(DOCUMENT)
    assert cli.main(["cpu", *TINY, "--batches", "2,3", "--contenders", "numpy", "--threads", "1",
                     "--json", str(rows_file), "--markdown", str(document)]) == 0

    rows = json.loads(rows_file.read_text())
    assert [(r["batch"], r["mode"]) for r in rows] == [(2, "train"), (2, "predict"), (3, "train"), (3, "predict")]
    for r in rows:
        assert list(r) == KEYS
        assert (r["net"], r["contender"], r["threads"], r["ratio"]) == ("numpy_cnn", "numpy", 1, None)
        assert r["seconds"] > 0
    printed = capsys.readouterr().out
    for fact in (f"NumPy {np.__version__}", "threads of every contender: 1",
                 "OPENBLAS_CORETYPE unset (the environment had Haswell)", "numpy: "):
        assert fact in printed
    assert table.as_text(table.step_table(rows)) in printed
    page = document.read_text()
    assert page.startswith("before\n<!-- benchmarks cpu: begin -->\n") and page.endswith("<!-- benchmarks cpu: end -->\nafter\n")
    assert "old" not in page and table.as_markdown(table.step_table(rows, times=False)) in page


@pytest.fixture
def no_torch(tmp_path, monkeypatch):
    """Processes find a torch that cannot be imported."""
    (tmp_path / "torch.py").write_text("raise ImportError('there is no torch in this test')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_contenders_that_cannot_run_are_named(no_torch, capsys):
    assert cli.main(["cpu", *TINY, "--modes", "predict"]) == 0
    printed = capsys.readouterr()
    for text in printed:
        assert 'torch-nchw: PyTorch cannot be imported (there is no torch in this test)' in text
        assert 'pip install "xpnet[bench]"' in text
    assert "numpy_cnn  2      predict" in printed.out


def test_a_contender_asked_for_by_name_must_be_there(no_torch, capsys):
    assert cli.main(["cpu", *TINY, "--contenders", "numpy", "torch-nhwc"]) == 2
    error = capsys.readouterr().err
    assert "--contenders: expected contenders that can run here. Received: torch-nhwc: PyTorch cannot be imported" in error
    assert 'pip install "xpnet[bench]"' in error


def test_gpu_without_a_gpu_is_an_error_that_says_why(no_torch, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cli.main(["gpu"]) == 2
    error = capsys.readouterr().err
    assert "gpu: expected at least one contender that can run here. Received: none.\n  cupy: CuPy" in error
    assert "torch-graph: PyTorch cannot be imported" in error


def test_a_backend_that_this_version_has_not_is_named():
    assert "cannot make it (get_backend: expected" in contenders.missing(Job("cpu", "jax", 1))


@pytest.mark.parametrize("code, message", [
    ("import sys; sys.exit('segments were violated')", "Received: exit status 1, and on stderr:\nsegments were violated"),
    ("print('hello')", "numpy: expected an answer in JSON. Received: 'hello"),
])
def test_a_process_that_breaks_down_is_an_error_with_its_stderr(monkeypatch, capsys, code, message):
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", code))
    assert cli.main(["cpu", *TINY]) == 2
    assert message in capsys.readouterr().err


def test_what_a_process_says_is_passed_on(monkeypatch):
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", "import sys; print('careful', file=sys.stderr); print(1)"))
    said = []
    assert race.ask("missing", Job("cpu", "numpy", 1), said.append) == 1
    assert said == ["numpy: careful"]


def test_ctrl_c_ends_with_130(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(cli, "ask", interrupt)
    assert cli.main(["cpu", *TINY]) == 130
    assert "interrupted" in capsys.readouterr().err


# --- options ----------------------------------------------------------------------------------------------------------

def test_lists_take_blanks_and_commas_and_each_name_once():
    options = cli._parser().parse_args(["cpu", "--nets", "bilici,", "numpy_cnn", "bilici", "--batches", "8,16", "4"])
    assert (options.nets, options.batches) == (["bilici", "numpy_cnn"], [8, 16, 4])
    assert (options.modes, options.contenders, options.rounds) == (["train", "predict"], None, 5)


@pytest.mark.parametrize("arguments, message", [
    ([], "cpu | gpu"),
    (["cpu", "--nets", "lenet"], "expected some of numpy_cnn, bilici, vgg_small, resnet18. Received: 'lenet'"),
    (["cpu", "--contenders", "cupy"], "expected some of numpy, numba, torch-nchw, torch-nhwc. Received: 'cupy'"),
    (["cpu", "--batches", "0"], "expected a whole number, 1 or larger. Received: '0'"),
    (["cpu", "--rounds", "two"], "expected a whole number, 1 or larger. Received: 'two'"),
    (["cpu", "--threads", "-1"], "--threads"),
    (["cpu", "--seconds", "nan"], "expected a number of seconds, 0 or larger. Received: 'nan'"),
    (["cpu", "--modes", ","], "expected at least one. Received: none"),
    (["cpu", "--tf32"], "unrecognized arguments: --tf32"),
])
def test_bad_options(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_files_are_checked_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_run", lambda options: pytest.fail("it started"))
    page = tmp_path / "page.md"
    page.write_text("no markers")
    for arguments, message in (
            (["--json", str(tmp_path / "none" / "x.json")], "--json: expected a file in a folder that exists."),
            (["--json", str(tmp_path)], "--json: expected a file in a folder that exists."),
            (["--markdown", str(page)], "--markdown: expected one line '<!-- benchmarks cpu: begin -->'"),
            (["--markdown", str(tmp_path / "none.md")], "none.md")):
        assert cli.main(["cpu", *arguments]) == 2
        assert message in capsys.readouterr().err


# --- rows and tables --------------------------------------------------------------------------------------------------

def test_the_ratio_is_to_the_faster_pytorch_of_the_same_cell():
    rows = race.with_ratios([
        row("numpy", 3.0), row("torch-nchw", 2.0), row("torch-nhwc", 1.5),
        row("numpy", 3.0, mode="predict"), row("torch-nchw", 4.0, mode="predict"),
        row("numpy", 3.0, threads=1), row("numpy", 3.0, batch=128), row("numpy", 3.0, net="resnet18"),
    ])
    assert [r["ratio"] for r in rows] == [2.0, 2.0 / 1.5, 1.0, 0.75, 1.0, None, None, None]
    assert all(list(r) == KEYS for r in rows)


def test_contenders_take_turns_and_the_median_counts(monkeypatch):
    order, times = [], {"numpy": iter([5.0, 1.0, 3.0]), "torch-nchw": iter([2.0, 9.0, 1.0])}

    def answer(task, job, say):
        order.append((job.net, job.contender))
        return {"seconds": {"train": next(times[job.contender])}, "about": {"kernels": job.contender}}
    monkeypatch.setattr(race, "ask", answer)
    match = race.Race(["numpy", "torch-nchw"], ["bilici"], [32], 3, Job("cpu", "", 2, modes=("train",)))
    assert match.run(lambda text: None) == [row("numpy", 3.0) | {"ratio": 1.5}, row("torch-nchw", 2.0) | {"ratio": 1.0}]
    assert [contender for _, contender in order] == ["numpy", "torch-nchw", "torch-nchw", "numpy", "numpy", "torch-nchw"]
    assert match.about == {name: {"kernels": name} for name in times}


def test_the_table():
    rows = race.with_ratios([row("numpy", 0.0123), row("torch-nchw", 0.01), row("numpy", 1.5, mode="predict")])
    assert table.step_table(rows) == [["net", "batch", "mode", "numpy", "torch-nchw"],
                                      ["bilici", "32", "train", "12.3 (1.23)", "10.0 (1.00)"],
                                      ["bilici", "32", "predict", "1500", ""]]
    assert table.step_table(rows, times=False)[1:] == [["bilici", "32", "train", "1.23", "1.00"],
                                                       ["bilici", "32", "predict", "", ""]]
    assert table.as_text([["net", "ms"], ["bilici", "1"]]) == "net     ms\nbilici  1"
    assert table.as_markdown([["net", "ms"], ["bilici", "1"]]) == "| net | ms |\n|---|---|\n| bilici | 1 |"
    assert [table.milliseconds(s) for s in (1.2345e-5, 1.2345e-3, 9.999e-3, 0.012345, 0.99999, 12.345)] == [
        "0.012", "1.23", "10.0", "12.3", "1000", "12300"]


@pytest.mark.parametrize("document", ["", DOCUMENT * 2, "<!-- benchmarks cpu: end --> <!-- benchmarks cpu: begin -->",
                                      DOCUMENT.replace("cpu", "gpu")])
def test_markers_that_are_not_there(document):
    with pytest.raises(ValueError, match="--markdown: expected one line .* Received: page.md without them"):
        table.between_markers(document, "cpu", "new", "page.md")


# --- one process ------------------------------------------------------------------------------------------------------

def test_processes_get_the_same_threads_and_choose_their_own_blas_kernels(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    env = race.environment(Job("cpu", "numpy", 3))
    assert "OPENBLAS_CORETYPE" not in env and env["CUPY_TF32"] == "0"
    assert {env[name] for name in race.THREAD_VARIABLES} == {"3"}
    assert race.environment(Job("gpu", "cupy", 3, tf32=True))["CUPY_TF32"] == "1"


def test_steps_are_timed_in_blocks_after_the_warm_up():
    calls = []
    seconds = worker.median_seconds(lambda: calls.append("step"), lambda: calls.append("wait"), 0.0, 2)
    assert calls == ["step"] * worker.WARM_UP + ["wait"] + ["step", "step", "wait"] * worker.FEWEST
    assert seconds >= 0


def test_a_contender_that_yields_no_numbers_is_refused(monkeypatch):
    runner = SimpleNamespace(step=lambda mode: lambda: np.nan, synchronize=lambda: None, finite=np.isfinite, about=dict)
    monkeypatch.setattr(worker, "runners", lambda job: [runner])
    with pytest.raises(RuntimeError, match="numpy: expected numbers from bilici's train step. Received: NaN or infinity"):
        worker.measure(Job("cpu", "numpy", 1, "bilici", 2, ("train",), 0.0))


def test_the_fastest_runner_of_a_contender_counts(monkeypatch):
    def runner(seconds):
        return SimpleNamespace(step=lambda mode: lambda: seconds, synchronize=lambda: None, finite=np.isfinite,
                               about=lambda: {"kernels": ""})
    monkeypatch.setattr(worker, "runners", lambda job: [runner(3.0), runner(2.0)])
    monkeypatch.setattr(worker, "median_seconds", lambda step, synchronize, seconds, block: step() * block)
    assert worker.measure(Job("cpu", "numpy", 1, modes=("train",)))["seconds"] == {"train": 2.0}
    assert worker.measure(Job("gpu", "cupy", 1, modes=("train",)))["seconds"] == {"train": 2.0 * worker.GPU_BLOCK}


def test_our_steps_train_and_predict():
    runner = Xpnet(Job("cpu", "numpy", 1, "numpy_cnn", 4))
    train, predict = runner.step("train"), runner.step("predict")
    losses = [float(train()) for _ in range(10)]
    assert losses[-1] < losses[0]
    assert predict().shape == (10, 4) and runner.finite(predict()) and not runner.finite(np.array([1.0, np.inf]))
    assert set(runner.about()["versions"]) == {"Python", "NumPy", "xpnet"}
    assert (cuda_version(13020), cuda_version(12090)) == ("13.2", "12.9")


# --- the GPU's part, as far as it goes without one ----------------------------------------------------------------------

def test_bandwidth_counts_every_byte_that_has_to_move():
    C, H, W, N = shape = (2, 4, 6, 8)
    copies = []

    def seconds_of(call):
        call()
        return 0.5
    rows = bandwidth.measure_kernels(get_backend("numpy"), seconds_of,
                                     lambda backend, size: lambda: copies.append(size), (shape,))
    x = 4 * C * H * W * N
    pooled = x // 4 + x // 16                               # float32, and a byte for each argmax
    assert {r["kernel"]: r["bytes"] for r in rows} == {
        "im2col": 10 * x, "col2im": 10 * x, "max_pool2d": x + pooled, "max_pool2d_dx": x + pooled, "dropout": 2 * x + x // 4}
    assert copies == [r["bytes"] // 2 for r in rows]
    assert all(r["bytes_per_second"] == r["bytes"] / 0.5 and r["of_copy"] == 1 for r in rows)
    assert table.bandwidth_table(rows)[1][:3] == ["im2col", "2 x 4 x 6 x 8", "0.0"]


def test_events_time_calls_in_a_row():
    log = []

    class Event:
        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("wait")

    cuda = SimpleNamespace(Event=Event, get_elapsed_time=lambda start, stop: 40.0)
    timer = bandwidth.event_timer(SimpleNamespace(xp=SimpleNamespace(cuda=cuda)))
    assert timer(lambda: log.append("call")) == pytest.approx(40e-3 / bandwidth.REPEATS)
    sample = ["record", *["call"] * bandwidth.REPEATS, "record", "wait"]
    assert log == ["call"] * bandwidth.WARM_UP + sample * bandwidth.SAMPLES


def test_rows_of_a_gpu_say_what_they_were_measured_on(tmp_path, monkeypatch, capsys):
    """The whole command with answers from no GPU at all."""
    about = {"cupy": {"versions": {"CuPy": "0"}, "kernels": "k", "device": "a GPU"},
             "torch-graph": {"versions": {"PyTorch": "0"}, "kernels": "k", "device": "a GPU"}}
    moved = {"kernel": "im2col", "shape": [1, 2, 3, 4], "bytes": 9, "seconds": 1.0, "bytes_per_second": 9.0,
             "copy_bytes_per_second": 18.0, "of_copy": 0.5}

    def answer(task, job, say):
        measured = {"seconds": dict.fromkeys(job.modes, 2.0), "about": about.get(job.contender)}
        absent = None if job.contender in about else "not here"
        return {"missing": absent, "measure": measured, "bandwidth": [moved]}[task]
    monkeypatch.setattr(race, "ask", answer)
    monkeypatch.setattr(cli, "ask", answer)
    assert cli.main(["gpu", *TINY, "--modes", "train", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [r.get("contender", r.get("kernel")) for r in rows] == ["cupy", "torch-graph", "im2col"]
    assert rows[0]["ratio"] == 1.0 and list(rows[0])[:7] == KEYS
    for r in rows:
        assert (r["device"], r["versions"], r["tf32"]) == ("a GPU", {"CuPy": "0", "PyTorch": "0"}, False)
        assert r["date"].endswith("+00:00")
    printed = capsys.readouterr().out
    assert "GPU: a GPU; TF32 off" in printed and "Left out: torch-nchw: not here" in printed and "of the copy" in printed


@pytest.mark.gpu
def test_our_side_on_a_gpu():
    try:
        backend = get_backend("cupy")
    except BackendError as error:
        (pytest.fail if os.environ.get("XPNET_REQUIRE_GPU") == "1" else pytest.skip)(str(error))
    rows = bandwidth.measure_kernels(backend, bandwidth.event_timer(backend), bandwidth.copy_on_device, ((2, 4, 6, 8),))
    assert len(rows) == 5 and all(r["of_copy"] > 0 for r in rows)
    answer = worker.measure(Job("gpu", "cupy", 1, "numpy_cnn", 4, seconds=0.0))
    assert set(answer["seconds"]) == {"train", "predict"} and answer["about"]["device"]
    assert "CuPy" in answer["about"]["versions"]
