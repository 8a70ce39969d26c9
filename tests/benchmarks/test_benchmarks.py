"""The benchmarks' command: what it measures, prints and writes, its options and its errors."""

import json
import sys

import numpy as np
import pytest

from benchmarks import cli, options, parts, race, recurrent, sides, table
from benchmarks.contenders import Job
from xpnet import get_backend

SMALL = ["--nets", "numpy_cnn", "--batches", "2", "--rounds", "1", "--seconds", "0"]
TINY = ["cpu", "--parts", "steps", *SMALL, "--threads", "1"]
DOCUMENT = "before\n<!-- benchmarks cpu: begin -->\nold\n<!-- benchmarks cpu: end -->\nafter\n"


@pytest.fixture
def numpy_alone(tmp_path, monkeypatch):
    """Processes find a torch and a numba that cannot be imported."""
    for name in ("torch", "numba"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('there is no {name} in this "
                                             "test')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


# --- the command, end to end ----------------------------------------------------------------------

def test_the_command_measures_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    rows_file, document = tmp_path / "rows.json", tmp_path / "page.md"
    document.write_text(DOCUMENT)
    assert cli.main([*TINY, "--batches", "2,3", "--threads", "1", "2", "--contenders", "numpy",
                     "--json", str(rows_file), "--markdown", str(document)]) == 0

    rows = json.loads(rows_file.read_text())
    assert [(r["threads"], r["batch"], r["mode"]) for r in rows] == [
        (threads, batch, mode) for threads in (1, 2) for batch in (2, 3)
        for mode in ("train", "predict")]
    for r in rows:
        assert (r["part"], r["net"], r["width"], r["contender"], r["ratio"],
                r["rounds"]) == ("steps", "numpy_cnn", 1, "numpy",
                                                                                            None, 1)
        assert (r["seconds"] > 0 and r["spread"] == 1 and r["date"].endswith("+00:00")
                and "NumPy" in r["versions"])
        if r["memory"] is not None:                                         # not every system tells
            assert 1e5 < r["memory"] < 1e8 and 1e6 < r["libraries"] < 1e9
    printed = capsys.readouterr().out
    for fact in (f"NumPy {np.__version__}", "threads of every contender: 1 or 2",
                 "OPENBLAS_CORETYPE unset (the environment had Haswell)", "numpy: ",
                 "numba: no line to compare with PyTorch"):
        assert fact in printed
    assert table.as_text(table.step_table(rows)) in printed
    page = document.read_text()
    assert (page.startswith("before\n<!-- benchmarks cpu: begin -->\n")
            and page.endswith("<!-- benchmarks cpu: end -->\nafter\n"))
    assert "old" not in page and table.as_markdown(table.step_table(rows, times=False)) in page


def test_rows_are_measured_again_and_tables_made_of_the_file(tmp_path, capsys):
    rows_file = tmp_path / "rows.json"
    command = [*TINY, "--modes", "predict", "--contenders", "numpy", "--json", str(rows_file)]
    assert cli.main(command) == 0
    first = json.loads(rows_file.read_text())
    assert cli.main([*command, "--batches", "2,4", "--merge"]) == 0
    both = json.loads(rows_file.read_text())
    assert [r["batch"] for r in both] == [2, 4] and both[0]["seconds"] != first[0]["seconds"]
    printed = capsys.readouterr().out

    assert cli.main(["cpu", "--tables-only", "--json", str(rows_file)]) == 0
    assert json.loads(rows_file.read_text()) == both
    text = table.as_text(table.step_table(both))
    assert text in printed and text in capsys.readouterr().out

    rows_file.write_text(json.dumps([r | {"cpu": "another processor"} for r in both]))
    assert cli.main(["cpu", "--tables-only", "--json", str(rows_file)]) == 2
    assert "with rows of another processor" in capsys.readouterr().err


def test_all_parts_in_one_run(tmp_path, monkeypatch, capsys):
    """With answers that nobody measured: the parts, their rows, and what of them travels to a
    page."""
    def answer(task, job, say):
        about = {"versions": {"NumPy": "0"}, "kernels": "k"}
        if task == "missing":
            return None
        if task == "peak":
            return {"flops_per_second": 4e9, "reason": None}
        if task == "convolutions":
            return {"about": about, "rows": [
                {"convolution": "1->8 5x5 @28", "batch": batch, "direction": direction,
                 "operations": 10**9, "seconds": 0.5}
                for batch in job.batches for direction in ("forward", "input", "filters")]}
        if task == "recurrent":         # signals and shorter sequences take half the time
            return {"about": about, "rows": [
                {"layer": case.layer, "mode": case.mode, "batch": case.batch,
                 "seconds": 1.0 if case.mode == "ragged" or "1d" in case.layer else 2.0}
                for case in recurrent.cases_of(job.contender)]}
        return {"about": about, "rows": [
            {"batch": batch, "mode": mode, "seconds": batch * job.width**2, "memory": 1000 * batch,
             "libraries": 5 * 10**6}
            for batch in job.batches for mode in job.modes]}
    for module in (race, parts):
        monkeypatch.setattr(module, "ask", answer)
    monkeypatch.setattr(options, "cores", lambda: 2)
    page = tmp_path / "page.md"
    page.write_text(DOCUMENT)
    assert cli.main(["cpu", "--nets", "bilici", "--json", str(tmp_path / "rows.json"), "--markdown",
                     str(page)]) == 0

    counts = {}
    for r in json.loads((tmp_path / "rows.json").read_text()):
        counts[r["part"]] = counts.get(r["part"], 0) + 1
    assert counts == {"convolutions": 2 * 3 * 2 * 2, "steps": 5 * 2 * 4 * 2,
                      "recurrent": 2 * (15 + 15 + 9), "growth": 2 * (9 + 3) * 4}
    printed, content = capsys.readouterr().out, page.read_text()
    assert "2 (50 %)" in printed and "| 50 % |" in content and "GFLOP/s" not in content
    assert ("| bilici | 128 | train | 1 | 1.00 | 1.00 | 1.00 | 1.00 |" in content
            and "Milliseconds" not in content)
    ragged = " | ".join(["1.00, full 0.50"] * 3)
    assert f"| LSTM | ragged | 32 | 2 | {ragged} |" in content and "torch-nhwc" in content
    assert "| Conv1d | train | 32 | 2 | 2-D 0.50 | 2-D 0.50 |  |" in content
    assert "2000 (1.00)" in printed and "Conv2d" in printed and "Conv2d" not in content
    # grows in proportion to the batch
    assert "| numpy_cnn | " in content and "256 | 1.00 |" in content
    assert "4.00 | 16.0 | 64.0 | 2.00 |" in content  # and with the square of the width
    assert "Memory of the libraries alone, after one use, in MB: numpy 5, numba 5" in printed
    assert (f"numba: none of {5 * 2 * 2} lines above 1.0 times the time of the better "
            "PyTorch" in printed)


def test_every_layer_of_the_part_recurrent_computes_finite_numbers():
    lengths = recurrent.lengths_of(32)
    assert (lengths.min(), lengths.max(), lengths.mean()) == (2, 99, 50.5)
    for case in recurrent.CASES:
        value = recurrent.step(case, get_backend("numpy"))()
        for array in value if isinstance(value, tuple) else (value,):
            assert np.isfinite(array).all() and array.shape[-1] == case.batch


def test_contenders_that_cannot_run_are_named(numpy_alone, capsys):
    assert cli.main([*TINY, "--modes", "predict"]) == 0
    printed = capsys.readouterr()
    for text in printed:
        assert 'torch-nchw: PyTorch cannot be imported (there is no torch in this test)' in text
        assert 'pip install "xpnet[bench]"' in text
        assert "numba: Numba cannot be imported (there is no numba in this test)" in text
    assert "numpy_cnn  2      predict  1" in printed.out


def test_a_contender_asked_for_by_name_must_be_there(numpy_alone, capsys):
    assert cli.main([*TINY, "--contenders", "numpy", "torch-nhwc"]) == 2
    error = capsys.readouterr().err
    assert ("--contenders: expected contenders that can run here. Received: torch-nhwc: PyTorch "
            "cannot be imported" in error)
    assert 'pip install "xpnet[bench]"' in error


def test_gpu_without_a_gpu_is_an_error_that_says_why(numpy_alone, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cli.main(["gpu"]) == 2
    error = capsys.readouterr().err
    assert ("gpu: expected at least one contender that can run here. Received: none.\n  cupy: "
            "CuPy" in error)
    assert "torch-graph: PyTorch cannot be imported" in error


def test_a_backend_that_this_version_has_not_is_named():
    assert "cannot make it (get_backend: expected" in sides.missing(Job("cpu", "jax", 1))


@pytest.mark.parametrize("code, message", [
    ("import sys; sys.exit('segments were violated')", "Received: exit status 1, and on "
                                                       "stderr:\nsegments were violated"),
    ("print('hello')", "numpy: expected an answer in JSON. Received: 'hello"),
])
def test_a_process_that_breaks_down_is_an_error_with_its_stderr(monkeypatch, capsys, code, message):
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", code))
    assert cli.main(TINY) == 2
    assert message in capsys.readouterr().err


def test_a_process_that_breaks_down_later_leaves_the_rows_of_the_others(tmp_path, monkeypatch,
                                                                        capsys):
    ask = race.ask

    def answer(task, job, say):
        if task == "measure" and job.threads == 2:
            raise race.ContenderError("numpy: it fell over")
        return ask(task, job, say)
    monkeypatch.setattr(race, "ask", answer)
    command = [*TINY, "--threads", "1", "2", "--modes", "predict", "--contenders", "numpy",
               "--json", str(tmp_path / "rows.json")]
    assert cli.main(command) == 2
    assert [r["threads"] for r in json.loads((tmp_path / "rows.json").read_text())] == [1]
    printed = capsys.readouterr()
    assert "numpy_cnn  2      predict  1" in printed.out
    assert ("benchmarks: 1 processes failed, so rows are missing:\nnumpy: it fell over"
            in printed.err)


def test_what_a_process_says_is_passed_on(monkeypatch):
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", "import sys; print('careful', "
                                                                "file=sys.stderr); print(1)"))
    said = []
    assert race.ask("missing", Job("cpu", "numpy", 1), said.append) == 1
    assert said == ["numpy: careful"]


def test_ctrl_c_ends_with_130(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(race, "ask", interrupt)
    assert cli.main(TINY) == 130
    assert "interrupted" in capsys.readouterr().err


# --- options --------------------------------------------------------------------------------------

def test_lists_take_blanks_and_commas_and_each_name_once():
    chosen = (options.parser().parse_args(["cpu", "--nets", "bilici,", "numpy_cnn", "bilici",
                                           "--batches", "8,16", "4"]))
    assert (chosen.nets, chosen.batches) == (["bilici", "numpy_cnn"], [8, 16, 4])
    assert (chosen.modes, chosen.contenders, chosen.rounds) == (["train", "predict"], None, 3)
    assert chosen.parts == ["steps", "convolutions", "recurrent", "growth"]
    assert options.parser().parse_args(["cpu", "--convolutions"]).parts == ["convolutions"]


def test_all_threads_are_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(options, "cores", lambda: 6)
    assert options.parser().parse_args(["cpu"]).threads == [1, 6]
    assert options.parser().parse_args(["cpu", "--threads", "all", "3,6"]).threads == [6, 3]
    assert options.parser().parse_args(["gpu"]).threads == 6
    monkeypatch.setattr(options, "cores", lambda: 1)
    assert options.parser().parse_args(["cpu"]).threads == [1]


@pytest.mark.parametrize("arguments, message", [
    ([], "cpu | gpu"),
    (["cpu", "--nets", "lenet"], "expected some of numpy_cnn, bilici, lenet5, vgg_small, resnet18. "
                                 "Received: 'lenet'"),
    (["cpu", "--contenders", "cupy"], "expected some of numpy, numba, torch-nchw, torch-nhwc. "
                                      "Received: 'cupy'"),
    (["cpu", "--parts", "all"],
     "expected some of steps, convolutions, recurrent, growth. Received: 'all'"),
    (["cpu", "--batches", "0"], "expected a whole number, 1 or larger. Received: '0'"),
    (["cpu", "--rounds", "two"], "expected a whole number, 1 or larger. Received: 'two'"),
    (["cpu", "--threads", "1", "many"], "expected a whole number, 1 or larger. Received: 'many'"),
    (["cpu", "--seconds", "nan"], "expected a number, 0 or larger. Received: 'nan'"),
    (["cpu", "--modes", ","], "expected at least one. Received: none"),
    (["cpu", "--tf32"], "unrecognized arguments: --tf32"),
])
def test_bad_options(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_files_are_checked_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_measure", lambda options, rows: pytest.fail("it started"))
    page, other = tmp_path / "page.md", tmp_path / "other.json"
    page.write_text("no markers")
    other.write_text('[{"part": "steps"}]')
    for arguments, message in (
            (["--json", str(tmp_path / "none" / "x.json")], "--json: expected a file in a folder "
                                                            "that exists."),
            (["--json", str(tmp_path)], "--json: expected a file in a folder that exists."),
            (["--json", str(other), "--merge"], "--json: expected rows that this version of the "
                                                "benchmarks wrote."),
            (["--json", str(tmp_path / "none.json"), "--tables-only"], "none.json"),
            (["--merge"], "--merge, --tables-only: expected --json FILE"),
            (["--markdown", str(page)], "--markdown: expected one line '<!-- benchmarks cpu: begin "
                                        "-->'"),
            (["--markdown", str(tmp_path / "none.md")], "none.md")):
        assert cli.main(["cpu", *arguments]) == 2
        assert message in capsys.readouterr().err
