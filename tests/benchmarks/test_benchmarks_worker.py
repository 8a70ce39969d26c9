"""One process of the benchmarks: its threads, times, memory, convolutions and peak."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tiers import first

from benchmarks import convolutions, memory, parts, peak, race, worker, xpnet_side
from benchmarks.contenders import INPUT_SHAPES, Job
from benchmarks.convolutions import Convolution
from benchmarks.xpnet_side import Xpnet, cuda_version
from xpnet import get_backend, models

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process's "
                                                              "memory is made of")


@pytest.mark.parametrize("platform", first(["linux", "darwin"], "linux"))
def test_a_process_goes_through_batches_and_modes(platform, monkeypatch):
    """In forks on Linux, where nothing else counts; one after the other elsewhere."""
    forks, fork = [], memory.apart
    monkeypatch.setattr(memory, "apart", lambda task: forks.append(task)
                        or (fork(task) if sys.platform == "linux" else task()))
    monkeypatch.setattr(worker, "sys", SimpleNamespace(platform=platform))
    answer = worker.measure(Job("cpu", "numpy", 1, batches=(1, 3), seconds=0.0))
    assert ([(r["batch"], r["mode"]) for r in answer["rows"]]
            == [(1, "train"), (1, "predict"), (3, "train"), (3, "predict")])
    assert len(forks) == (4 if platform == "linux" else 0) and "kernels" in answer["about"]


def test_processes_get_the_same_threads_and_choose_their_own_blas_kernels(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    env = race.environment(Job("cpu", "numpy", 3))
    assert "OPENBLAS_CORETYPE" not in env and env["CUPY_TF32"] == "0"
    assert ({env[name] for name in race.THREAD_VARIABLES} == {"3"}
            and "NUMBA_NUM_THREADS" in race.THREAD_VARIABLES)
    assert race.environment(Job("gpu", "cupy", 3, tf32="always"))["CUPY_TF32"] == "1"


def test_steps_are_timed_after_the_warm_up():
    calls = []

    def step():
        calls.append("step")
        return len(calls)
    seconds, value = worker.median_seconds(step, lambda: calls.append("wait"), 0.0)
    assert calls == ["step"] * worker.WARM_UP + ["wait"] + ["step", "wait"] * worker.FEWEST
    assert seconds >= 0 and value == len(calls) - 1


def runner(value, kernels=""):
    return SimpleNamespace(step=lambda mode: lambda: value, synchronize=lambda: None,
                           finite=np.isfinite, about=lambda: {"kernels": kernels})


def test_a_contender_that_yields_no_numbers_is_refused(monkeypatch):
    monkeypatch.setattr(worker, "runner", lambda job, batch: runner(np.nan))
    with pytest.raises(RuntimeError, match="numpy: expected finite numbers from the train step of "
                                           "bilici. Received: NaN or infinity"):
        worker.measure_one(Job("cpu", "numpy", 1, "bilici", seconds=0.0), 2, "train")


@pytest.mark.parametrize("net", ["numpy_cnn", "lenet5"])
def test_our_steps_train_and_predict(net):
    ours = Xpnet(Job("cpu", "numpy", 1, net), 4)
    train, predict = ours.step("train"), ours.step("predict")
    losses = [float(train()) for _ in range(10)]
    assert losses[-1] < losses[0]
    assert (predict().shape == (10, 4) and ours.finite(predict())
            and not ours.finite(np.array([1.0, np.inf])))
    assert set(ours.about()["versions"]) == {"Python", "NumPy", "xpnet"}
    assert (cuda_version(13020), cuda_version(12090)) == ("13.2", "12.9")


@pytest.mark.parametrize("net", first(INPUT_SHAPES, *(INPUT_SHAPES.keys() - {"resnet50"})))
def test_every_network_trains_on_a_single_sample(net):
    ours = Xpnet(Job("cpu", "numpy", 1, net), 1)
    assert ours.finite(ours.step("train")())


def test_a_width_of_one_is_the_network_itself():
    def shapes(net):
        return [p.shape for layer in net.layers for p in layer.parameters]
    assert (shapes(xpnet_side.numpy_cnn(backend="numpy"))
            == shapes(models.numpy_cnn(backend="numpy")))
    assert shapes(xpnet_side.numpy_cnn(backend="numpy", width=2))[2] == (16, 16, 5, 5)
    wide = Xpnet(Job("cpu", "numpy", 1, "vgg_small", width=0.5), 1)
    assert shapes(wide.net)[0] == (32, 3, 3, 3)


# --- memory ---------------------------------------------------------------------------------------

@on_linux
def test_the_peak_is_what_was_there_at_the_same_time():
    if not memory.reset_peak():
        pytest.skip("this system does not let a process reset its peak")
    size = 64 << 20

    def fill():
        return np.ones(size, np.uint8)
    fill()
    # else what earlier tests freed would be filled, and that is resident already
    memory.hand_back()
    memory.reset_peak()
    before = memory.resident()
    for _ in range(3):
        fill()
    assert size * 0.9 < memory.peak() - before < size * 1.5
    memory.hand_back()
    memory.reset_peak()
    assert memory.peak() - before < size * 0.5


@on_linux
def test_a_fork_answers_and_keeps_its_memory_to_itself():
    kept = []

    def task():
        kept.append(1)
        return {"pid": os.getpid(), "kept": kept}
    answer = memory.apart(task)
    assert answer["kept"] == [1] and kept == [] and answer["pid"] != os.getpid()


@on_linux
def test_a_fork_that_fails_is_an_error_with_its_stderr(capfd):
    with pytest.raises(RuntimeError, match="expected an answer. Received: exit status 1 of the "
                                           "process"):
        memory.apart(lambda: 1 // 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "RESET", tmp_path / "none" / "clear_refs")
    assert (memory.resident(), memory.peak(), memory.reset_peak()) == (None, None, False)
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  70 kB\nVmRSS:\t  50 kB\nRssFile:\t  "
                                     "20 kB\n")
    assert (memory.resident(), memory.peak()) == (30 * 1024, 50 * 1024)
    ours = worker.measure_one(Job("cpu", "numpy", 1, "numpy_cnn", seconds=0.0), 2, "predict")
    assert ours["row"]["memory"] is None and ours["row"]["seconds"] > 0


# --- convolutions and the peak --------------------------------------------------------------------

def test_operations_count_what_the_direct_algorithm_does():
    assert Convolution(3, 8, 5, 28).operations(2) == 2 * 8 * 3 * 25 * 24 * 24 * 2
    assert (Convolution(4, 6, 3, 8, "half", stride=2, groups=2).operations(1) == 2 * 6 * 2 * 9 * 4
            * 4)
    assert Convolution(64, 128, 3, 16, "half", stride=2).name == "64->128 3x3 half /2 @16"
    assert Convolution(64, 64, 1, 16, groups=64).name == "64->64 1x1 groups 64 @16"
    names = [convolution.name for convolution in convolutions.CONVOLUTIONS]
    assert len(set(names)) == len(names)


def test_each_direction_of_each_convolution_is_called(monkeypatch):
    monkeypatch.setattr(convolutions, "CONVOLUTIONS", (Convolution(4, 6, 3, 8, "half", 2, 2),))
    shapes = []

    def seconds_of(call):
        shapes.append(call().shape)
        return 0.5
    rows = convolutions.measure_convolutions(get_backend("numpy"), (2,), seconds_of)
    assert shapes == [(6, 4, 4, 2), (4, 8, 8, 2), (6, 2, 3, 3)]
    assert [(r["direction"], r["batch"], r["seconds"]) for r in rows] == [
        ("forward", 2, 0.5), ("input", 2, 0.5), ("filters", 2, 0.5)]
    assert {r["operations"] for r in rows} == {2 * 6 * 2 * 9 * 4 * 4 * 2}


def test_convolutions_in_a_process_of_their_own(monkeypatch):
    monkeypatch.setattr(convolutions, "CONVOLUTIONS", (Convolution(1, 2, 3, 6),))
    answer = worker.convolutions(Job("cpu", "numpy", 1, batches=(1, 2), seconds=0.0))
    assert ([r["batch"] for r in answer["rows"]] == [1, 1, 1, 2, 2, 2]
            and "kernels" in answer["about"])


def test_without_numba_there_is_no_peak_and_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    answer = peak.peak_flops(1)
    assert (answer["flops_per_second"] is None and "Numba, which cannot be imported"
            in answer["reason"])


def test_convolutions_say_that_there_is_no_peak(monkeypatch):
    answers = {"peak": {"flops_per_second": None, "reason": "no Numba"},
               "convolutions": {"about": {},
                                "rows": [{"convolution": "c", "batch": 1, "direction": "forward",
                                                       "operations": 6, "seconds": 2.0}]}}
    for module in (parts, race):
        monkeypatch.setattr(module, "ask", lambda task, job, say: answers[task])
    said = []
    found, = parts.single_convolutions([1], race.Turns(["numpy", "torch-nchw"], 1),
                                       Job("cpu", "", 1), said.append)
    assert (found["flops_per_second"], found["of_peak"], found["contender"]) == (3.0, None, "numpy")
    assert "convolutions: no peak to compare with: no Numba" in said
    assert parts.single_convolutions([1], race.Turns(["torch-nchw"], 1), Job("cpu", "", 1),
                                     said.append) == []
    assert "neither numpy nor numba" in said[-1]


def test_the_peak_is_measured_where_numba_is(monkeypatch):
    pytest.importorskip("numba", reason='Numba is not installed: pip install "xpnet[fast]"')
    monkeypatch.setattr(peak, "MULTIPLY_ADDS", 1e6)
    monkeypatch.setattr(peak, "SAMPLES", 2)
    answer = peak.peak_flops(1)
    assert answer["reason"] is None and answer["flops_per_second"] > 0
