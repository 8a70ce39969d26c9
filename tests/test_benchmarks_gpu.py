"""The GPU's benchmarks without a GPU: NumPy and PyTorch on the CPU stand in, in real processes where processes matter."""

import io
import json
import math
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gpu import gpu_or_skip

from benchmarks import cli, race
from benchmarks.contenders import CONTENDERS, Job
from benchmarks.gpu import (
    accuracy,
    bandwidth,
    check,
    command,
    compiling,
    parts,
    peak_memory,
    plans,
    products,
    rows,
    small_run,
    steps,
    tables,
    timing,
)
from benchmarks.gpu.accuracy import Goal
from xpnet import get_backend
from xpnet.data import Dataset

DOCUMENT = "before\n<!-- benchmarks gpu: begin -->\nold\n<!-- benchmarks gpu: end -->\nafter\n"
ABOUT = {"versions": {"CuPy": "0"}, "kernels": "k", "device": "NVIDIA H200"}
CPU = Job("cpu", "numpy", 1, seconds=0.0)


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "xpnet[bench]"')
    threads = torch.get_num_threads()
    yield torch
    torch.set_num_threads(threads)


def silent(text):
    pass


# --- steps --------------------------------------------------------------------------------------------------------------

def test_times_leave_out_the_first_epochs_and_end_when_there_are_enough():
    times = steps.Times(1.0)
    assert [times(seconds) for seconds in (9.0, 8.0, 0.5, 0.3, 0.1)] == [False] * 5         # three that count, but 0.9 s
    assert times(0.2) and times.median() == 0.25
    assert not steps.Times(0.0)(5.0)


@pytest.mark.parametrize("contender", ["numpy", "torch-nchw", "torch-nhwc"])
def test_a_contender_trains_over_its_data_set(contender, monkeypatch, torch):
    monkeypatch.setattr(steps, "BATCHES", 3)
    job = Job("cpu", contender, 1, cells=(("numpy_cnn", 4), ("bilici", 2)), seconds=0.0)
    answers = list(steps.measure(job))
    assert all("kernels" in answer["about"] for answer in answers[::2])
    assert [(answer["row"]["net"], answer["row"]["batch"]) for answer in answers[1::2]] == [("numpy_cnn", 4), ("bilici", 2)]
    for answer in answers[1::2]:
        assert answer["row"]["seconds"] > 0 and answer["row"]["memory"] is None


@pytest.mark.parametrize("contender", ["numpy", "torch-nhwc", "torch-nchw"])
def test_it_learns_what_can_be_learned(contender, torch):
    """Classes that a picture's brightness tells: the loss of the last epoch is far below that of the first."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    images = (rng.standard_normal((64, 1, 28, 28)) + 2 * labels[:, None, None, None]).astype(np.float32)
    epochs = steps.contestants(Job("cpu", contender, 1), "numpy_cnn", 8)[0](images, labels)
    first, asked = epochs.train(8, lambda seconds: True), []
    last = epochs.train(8, lambda seconds: asked.append(seconds) or len(asked) == 4)
    assert len(asked) == 4 and last < 0.5 * first


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_captured_step_reads_its_batch_where_it_was_captured(layout, torch, monkeypatch):
    """Without a GPU: the step is stood in for by one that returns what it reads."""
    from benchmarks.gpu import torch_steps

    class Captured(torch_steps.Eager):
        def step(self, mode):
            x, labels, self.read = self.x, self.labels, []
            return lambda: self.read.append((x.clone(), labels.clone())) or torch.zeros(())
    monkeypatch.setattr(torch_steps, "Captured", Captured)
    images, labels = steps.samples("numpy_cnn", 6)
    epochs = torch_steps.TorchEpochs(Job("cpu", "torch-graph", 1), "numpy_cnn", 2, layout, images, labels)
    epochs.train(3, lambda seconds: True)
    seen = {int(n) for x, found in epochs.runner.read for image, label in zip(x, found)
            for n in range(6) if np.array_equal(images[n], image.numpy()) and labels[n] == label}
    assert seen == set(range(6)) and len(epochs.runner.read) == 3


def test_torch_graph_runs_in_both_layouts_and_ours_says_how(torch):
    assert [make.args[-1] for make in steps.contestants(Job("gpu", "torch-graph", 1), "bilici", 8)] == ["nchw", "nhwc"]
    assert [make.args[-1] for make in steps.contestants(Job("gpu", "torch-nhwc", 1), "bilici", 8)] == ["nhwc"]
    assert Job("gpu", "cupy-eager", 1).backend == "cupy"


def test_cupy_eager_is_fit_that_does_not_capture(monkeypatch):
    from xpnet.network import Network
    asked = []
    monkeypatch.setattr(Network, "fit", lambda self, x, y, **options: asked.append(options) or {"loss": [1.0]})
    for contender in ("numpy", "numpy-eager"):
        epochs = steps.XpnetEpochs(Job("cpu", contender, 1), "numpy_cnn", 2, *steps.samples("numpy_cnn", 4))
        assert epochs.train(1, lambda seconds: True) == 1.0
    assert "capture" not in asked[0] and asked[1]["capture"] is False


def test_a_loss_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setattr(steps.XpnetEpochs, "train", lambda self, batches, until: [until(1.0) for _ in range(9)] and math.nan)
    monkeypatch.setattr(steps.XpnetEpochs, "memory", lambda self: {})
    with pytest.raises(RuntimeError, match="numpy: expected numpy_cnn to train. Received: a loss of nan"):
        list(steps.measure(Job("cpu", "numpy", 1, cells=(("numpy_cnn", 1),))))


def test_what_is_warned_of_stands_in_the_row(monkeypatch):
    def train(self, batches, until):
        warnings.warn("it was not captured", stacklevel=2)
        return [until(1.0) for _ in range(9)] and 1.0
    monkeypatch.setattr(steps.XpnetEpochs, "train", train)
    monkeypatch.setattr(steps.XpnetEpochs, "memory", lambda self: {})
    *_, answer = steps.measure(Job("cpu", "numpy", 1, cells=(("numpy_cnn", 1),)))
    assert answer["row"]["warning"] == "it was not captured"


def test_every_network_has_batches_and_targets():
    assert set(steps.CELLS) == set(rows.STEP_TARGETS) and set(steps.FEW) <= set(steps.CELLS)


# --- memory -------------------------------------------------------------------------------------------------------------

def test_the_peak_counts_what_hooks_tell():
    """With CuPy's hooks stood in for: arrays that come and go, and a pool that takes memory in larger pieces."""
    class MemoryHook:
        def __enter__(self):
            current.append(self)
            return self

        def __exit__(self, *_):
            current.clear()
    current = []
    freed = []
    pool = SimpleNamespace(free_all_blocks=lambda: freed.append(True))
    xp = SimpleNamespace(cuda=SimpleNamespace(MemoryHook=MemoryHook), get_default_memory_pool=lambda: pool)
    backend = SimpleNamespace(name="cupy:0", xp=xp, synchronize=lambda: None)

    def work():
        hook, = current
        hook.alloc_postprocess(device_id=0, mem_size=1000, mem_ptr=1)
        hook.malloc_postprocess(device_id=0, size=500, mem_size=512, mem_ptr=1, pmem_id=1)
        hook.malloc_postprocess(device_id=0, size=100, mem_size=512, mem_ptr=2, pmem_id=2)
        hook.free_postprocess(device_id=0, mem_size=512, mem_ptr=1, pmem_id=1)
        hook.free_postprocess(device_id=0, mem_size=9999, mem_ptr=7, pmem_id=7)     # was there before
        hook.malloc_postprocess(device_id=0, size=1, mem_size=256, mem_ptr=3, pmem_id=3)
        hook.malloc_postprocess(device_id=0, size=1, mem_size=256, mem_ptr=0, pmem_id=0)     # there was not enough
        hook.alloc_postprocess(device_id=0, mem_size=1000, mem_ptr=0)
    assert peak_memory.peak_of(backend, work) == {"memory": 1024, "reserved": 1000} and freed


def test_cupys_hooks_are_called_as_ours_expect():
    cupy = pytest.importorskip("cupy", reason='CuPy is not installed: pip install "xpnet[cuda13]"')
    for name, arguments in (("malloc_postprocess", ("mem_size", "pmem_id")), ("free_postprocess", ("pmem_id",)),
                            ("alloc_postprocess", ("mem_size", "mem_ptr"))):
        text = getattr(cupy.cuda.MemoryHook, name).__doc__
        assert all(f"{argument}(int)" in text for argument in arguments)


# --- bandwidth ----------------------------------------------------------------------------------------------------------

def test_bandwidth_counts_every_byte_that_has_to_move(monkeypatch):
    monkeypatch.setattr(bandwidth, "ROTATED", 0)
    found = {}
    backend, n = get_backend("numpy"), 2**21
    for kernel in bandwidth.KERNELS:
        call, moved, shape = kernel(backend, n)
        call()
        found[kernel.__name__] = moved / (4 * math.prod(shape))         # in the bytes of x
    pooled = 1 / 4 + 1 / 16                                             # float32, and a byte for each argmax
    assert found == pytest.approx({
        "im2col": 10, "col2im": 10, "max_pool2d": 1 + pooled, "max_pool2d_dx": 1 + pooled, "avg_pool2d": 1.25,
        "avg_pool2d_dx": 1.25, "dropout": 2.25, "dropout_dx": 2.25, "batch_norm": 3, "batch_norm_backward": 7,
        "batch_norm_inference": 2, "softmax_cross_entropy": 2 + 2 / 1000, "activate": 2, "activation_backward": 3, "sgd": 5,
        "adam": 7, "gather_batch": 2, "gather_batch_uint8": 1.25})


def test_small_calls_take_turns_on_several_arrays(monkeypatch):
    monkeypatch.setattr(bandwidth, "ROTATED", 1000)
    made, called = [], []

    def make(n):
        number = len(made)
        made.append(n)
        return lambda: called.append(number), 300, ()
    call, moved, _ = bandwidth.in_turn(make, 7)
    for _ in range(6):
        call()
    assert made == [7] * 4 and called == [0, 1, 2, 3, 0, 1] and moved == 300


def test_a_row_for_each_kernel_and_size(monkeypatch):
    monkeypatch.setattr(bandwidth, "ROTATED", 0)
    monkeypatch.setattr(bandwidth, "KERNELS", (bandwidth.activate, bandwidth.sgd))
    found = list(bandwidth.measure_kernels(get_backend("numpy"), lambda call: 0.5, (0.25, 0.5)))
    assert [(row["kernel"], row["megabytes"], row["of_copy"]) for row in found] == [
        ("activate", 0.5, 1.0), ("sgd", 0.5, 2.5), ("activate", 0.25, 1.0), ("sgd", 0.25, 2.5)]


def test_events_time_calls_that_stand_in_the_queue_already():
    log = []

    class Event:
        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("wait")
    timer = timing.event_timer(Event, lambda start, stop: 40e-3, lambda: log.append("hold"))
    assert timer(lambda: log.append("call")) == 40e-3
    sample = ["hold", "record", "call", "record", "wait"]
    assert log == ["call"] * timing.WARM_UP + sample * (1 + timing.FEWEST_SAMPLES)
    log.clear()
    timing.event_timer(Event, lambda start, stop: 1e-6, lambda: None)(lambda: log.append("call"))
    assert log.count("call") == timing.WARM_UP + 1 + timing.REPEATS * timing.SAMPLES


# --- products -----------------------------------------------------------------------------------------------------------

def test_both_sides_do_the_same_products_and_convolutions(torch, monkeypatch):
    """Same operations, so results of the same number of elements, in each direction."""
    from benchmarks.gpu import torch_products
    small = ((products.Product(6, 5, 4), 1), (products.Convolution(4, 6, 3, 8, "half", 2, 2), 2))
    for what, batch in small:
        ours = {direction: np.asarray(call()).size for direction, call in products.our_calls(get_backend("numpy"), what, batch)}
        assert list(ours) == list(products.DIRECTIONS)
        theirs = [(direction, call()) for direction, call in torch_products.torch_calls(CPU, what, batch)]
        assert len(theirs) == (3 if isinstance(what, products.Product) else 6)          # convolutions in two layouts
        for direction, result in theirs:
            found = next(part for part in result if part is not None) if isinstance(result, tuple) else result
            assert found.numel() == ours[direction]


@pytest.mark.parametrize("contender", ["numpy", "torch"])
def test_products_are_measured(contender, torch, monkeypatch):
    monkeypatch.setattr(products.measure_shapes, "__defaults__", (((products.Product(6, 5, 4), 1),),))
    about, *answers = products.measure(Job("cpu", contender, 1))
    assert "kernels" in about["about"]
    assert [(a["row"]["product"], a["row"]["direction"]) for a in answers] == [
        ("6x5x4", direction) for direction in ("forward", "input", "filters")]
    assert all(a["row"]["flops_per_second"] == 240 / a["row"]["seconds"] for a in answers)


def test_the_faster_of_several_calls_counts():
    seconds = iter([3.0, 5.0, 4.0, 2.0, 6.0, 1.0])

    def calls(what, batch):
        for _ in range(2):
            yield from ((direction, lambda: None) for direction in products.DIRECTIONS)
    found = products.measure_shapes(CPU, calls, lambda call: next(seconds), ((products.Product(1, 1, 1), 1),))
    assert [answer["row"]["seconds"] for answer in found] == [2.0, 5.0, 1.0]


def test_products_have_names_of_their_own():
    names = [(what.name, batch) for what, batch in products.SHAPES]
    assert len(set(names)) == len(names)


# --- plans --------------------------------------------------------------------------------------------------------------

def test_all_ways_of_a_key_are_timed_once_and_the_best_is_used():
    ran, seconds = [], {"usual": 1.0, "a": 0.5, "b": 0.99}
    recorder = plans.Recorder(lambda call: seconds[call()], lambda: False)

    def run(way):
        ran.append(way)
        assert recorder("key", "usual", lambda: ("a",), run=None) == "usual"        # asked for within itself
        return way
    assert [recorder("key", "usual", lambda: ("a", "usual", "b"), run) for _ in range(2)] == ["a", "a"]
    assert ran == ["usual", "a", "b"]
    assert recorder("other", "usual", lambda: ("b",), lambda way: way) == "usual"     # too little gained
    assert [(row["key"], row["best"], row["seconds"], row["usual_seconds"]) for row in recorder.rows] == [
        ("key", "a", 0.5, 1.0), ("other", "usual", 1.0, 1.0)]
    assert plans.Recorder(lambda call: 1.0, lambda: True)("key", "usual", lambda: ("a",), run) == "usual"


def test_the_table_of_plans_keeps_what_was_not_measured():
    def found(key, best):
        return {"key": key, "usual": 0, "best": best, "architecture": "sm_90"}
    old = {"sm_90": {"a": 1, "b": 1}, "sm_80": {"a": 2}}
    assert plans.table([found("c", [64, 64, 2]), found("a", 0)], old) == {
        "sm_80": {"a": 2}, "sm_90": {"b": 1, "c": [64, 64, 2]}}
    assert old["sm_90"] == {"a": 1, "b": 1} and plans.table([found("a", 0)], {}) == {}


def test_plans_go_into_a_file_beside_the_rows(pretended, capsys):
    assert cli.main(["gpu", "--parts", "plans", "--json", str(pretended / "rows.json")]) == 0
    assert json.loads((pretended / "rows.plans").read_text())["sm_90"]["gemm 1x2x3"] == [64, 64, 1]
    printed = capsys.readouterr().out
    assert "gemm 1x2x3  [128, 128, 1]  [64, 64, 1]  3.0       2.0      0.67" in printed


# --- to an accuracy -----------------------------------------------------------------------------------------------------

def bright(samples, shape, seed):
    """Pictures of ten classes: each has a bright column of its own."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 10, samples)
    x = rng.integers(0, 100, (samples, *shape)).astype(np.uint8)
    x[np.arange(samples), :, :, 8 + y] += 150
    return x, y


@pytest.mark.parametrize("contender", ["numpy", "torch-nchw", "torch-nhwc"])
def test_training_along_one_cycle_reaches_an_accuracy(contender, torch):
    x, y = bright(256, (1, 28, 28), 0)
    x = (x / np.float32(255))
    goal = Goal("mnist", "bilici", 32, 0.9, 6)
    job = Job("cpu", contender, 1, started=time.time() - 5)
    about, answer = accuracy.train_mnist(job, Dataset(x, y, x[:64], y[:64]), goal)
    row = answer["row"]
    assert row["accuracy"] >= 0.9 and row["epochs"] == 6 and row["seconds"] > 5
    assert "kernels" in about["about"]


@pytest.mark.parametrize("contender", ["numpy", "torch-nhwc"])
def test_cifar_trains_with_crops_and_flips(contender, torch, monkeypatch):
    from benchmarks import xpnet_side
    monkeypatch.setitem(xpnet_side.NETS, "resnet18", lambda shape, backend: xpnet_side.NETS["vgg_small"](shape, backend=backend))
    if contender.startswith("torch"):
        from benchmarks import torch_nets
        monkeypatch.setitem(torch_nets.NETS, "resnet18", torch_nets.NETS["vgg_small"])
    x, y = bright(64, (3, 32, 32), 0)
    goal = Goal("cifar", "resnet18", 32, 2.0, 2)                                        # never reached
    _, answer = accuracy.train_cifar(Job("cpu", contender, 1), Dataset(x, y, x, y), goal)
    assert answer["row"]["epochs"] == 2 and 0 <= answer["row"]["accuracy"] <= 1


@pytest.mark.parametrize("captured", [False, True])
def test_pytorchs_rates_are_those_of_xpnets_schedule(captured, torch):
    from benchmarks.gpu.torch_steps import OneCycleAdamW
    from xpnet.schedules import OneCycle
    model = torch.nn.Linear(3, 2)
    runner = SimpleNamespace(model=model, device=torch.device("cpu"), capturable=captured)
    recipe = OneCycleAdamW(5, 4e-3, 0.1)
    recipe.apply_to(runner)
    assert [group["weight_decay"] for group in runner.optimizer.param_groups] == [0.1, 0.0]
    before = model.weight.clone()
    model(torch.ones(1, 3)).sum().backward()
    assert [float(group["lr"]) for group in runner.optimizer.param_groups] == [0.0, 0.0]
    for step in range(5):
        recipe.next_rate()
        for group in runner.optimizer.param_groups:
            assert float(group["lr"]) == pytest.approx(4e-3 * OneCycle().factor(step / 4))
    if not captured:            # PyTorch takes a rate in memory on a GPU alone
        runner.optimizer.step()
        assert not torch.equal(model.weight, before)


def test_both_sides_crop_and_flip_the_same_way(torch):
    from benchmarks.gpu.torch_cifar import TorchTrainer
    from xpnet.data.transforms import random_crop, random_flip
    trainer = TorchTrainer.__new__(TorchTrainer)
    trainer.device = torch.device("cpu")
    x, _ = bright(9, (3, 32, 32), 1)
    theirs, rng = np.random.default_rng(3), np.random.default_rng(3)
    changed = trainer.flipped(trainer.cropped(torch.tensor(x), theirs), theirs).numpy()
    np.testing.assert_array_equal(changed, random_flip(random_crop(x, rng), rng))


def test_jpegs_are_read(tmp_path):
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")
    (tmp_path / "cifar10").mkdir()
    files = []
    for value in (0, 128, 255):
        file = io.BytesIO()
        Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(file, "JPEG")
        files.append(file.getvalue())
    content = {"jpeg": np.frombuffer(b"".join(files), np.uint8), "offsets": np.cumsum([0, *map(len, files)]),
               "labels": np.array([1, 2, 3], np.uint8)}
    np.savez(tmp_path / "cifar10" / "cifar10-jpeg.npz", **{f"{part}_{name}": array for part in ("train", "test")
                                                           for name, array in content.items()})
    data = accuracy.read_cifar(str(tmp_path))
    assert data.x_train.shape == (3, 3, 32, 32) and data.x_test.dtype == np.uint8
    assert [int(picture.mean()) for picture in data.x_test] == [0, 128, 255] and data.y_train.tolist() == [1, 2, 3]


# --- processes ----------------------------------------------------------------------------------------------------------

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
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", "import time; print(1, flush=True); time.sleep(1000)"))
    with pytest.raises(race.ContenderError, match="expected its process to steps within 7 s. Received: no end of it"):
        for answer in race.stream("steps", CPU, silent, 7):
            seen.append(answer)
            timers[0].ring()
    assert seen == [1] and timers[0].seconds == 7


def test_lines_that_are_no_json_are_an_error(monkeypatch):
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", "print('hello')"))
    with pytest.raises(race.ContenderError, match="numpy: expected lines of JSON"):
        list(race.stream("steps", CPU, silent, 60))


def test_what_a_process_says_comes_with_its_name(monkeypatch):
    monkeypatch.setattr(race, "COMMAND", (sys.executable, "-c", "import sys; print(1); print('careful', file=sys.stderr)"))
    said = []
    assert list(race.stream("steps", CPU, said.append, 60)) == [1] and said == ["numpy: careful"]


def test_steps_in_real_processes():
    """One network on NumPy, asked for as a GPU's part is."""
    setting = parts.Setting(["numpy"], 2, time.monotonic() + 100, CPU, [], silent)
    *_, found = parts.steps(setting, [("numpy_cnn", 1)])
    row, = found
    assert row["rounds"] == 2 and row["seconds"] > 0 and row["tf32"] == "never" and "NumPy" in row["versions"]
    assert setting.broken == []


def test_kernels_are_shared_among_processes():
    shares = [compiling.share(number, 3, without=compiling.OTHER_TYPES) for number in range(3)]
    everything = [kernel for share in shares for kernel in share]
    assert len(set(everything)) == len(everything) > 30 and max(map(len, shares)) - min(map(len, shares)) <= 1
    assert not any("half" in kernel or "double" in kernel for _, kernel in everything)
    assert [answer["compiled"] for answer in compiling.measure(CPU)] == [len(everything)]
    assert set(everything) < set(compiling.share(0, 1))


# --- the command --------------------------------------------------------------------------------------------------------

def answers(task, job, say, timeout):
    """What processes would answer, measured by nobody; "torch-graph" breaks down in the middle."""
    yield from () if task == "compile" else ({"about": ABOUT},)
    if task == "compile":
        yield {"compiled": 5, "failed": []}
    elif task == "steps":
        for net, batch in job.cells:
            if job.contender == "torch-graph" and net == "bilici":
                raise race.ContenderError("torch-graph: it fell over")
            seconds = {"cupy": 0.3, "cupy-eager": 2.0, "torch-nchw": 1.5, "torch-nhwc": 1.0, "torch-graph": 0.5}[job.contender]
            yield {"row": {"net": net, "batch": batch, "seconds": seconds * batch, "memory": 10**8, "reserved": 2 * 10**8,
                           "predicted": 9 * 10**7 if job.contender == "cupy" else None,
                           "warning": "not captured" if job.contender == "cupy" and net == "bilici" else None}}
    elif task == "bandwidth":
        for kernel, megabytes, share in (("im2col", 256, 0.5), ("im2col", 16, 0.5), ("sgd", 256, 0.9)):
            yield {"row": {"kernel": kernel, "megabytes": megabytes, "shape": [1], "bytes": 9, "seconds": 1.0,
                           "bytes_per_second": 4e12 * share, "copy_bytes_per_second": 4e12, "of_copy": share}}
    elif task == "plans":
        yield {"row": {"key": "gemm 1x2x3", "usual": [128, 128, 1], "best": [64, 64, 1], "seconds": 2e-6, "usual_seconds": 3e-6,
                       "architecture": "sm_90", "ways": []}}
    elif task == "products":
        yield {"row": {"product": "6x5x4", "batch": 1, "direction": "forward", "operations": 240,
                       "seconds": 2.0 if job.contender == "torch" else 1.0, "flops_per_second": 1e13}}
    else:
        yield {"row": {"net": "bilici", "batch": 128, "goal": 0.99, "accuracy": 0.991, "epochs": 2, "seconds": 4.0}}


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    monkeypatch.setattr(parts, "stream", answers)
    monkeypatch.setattr(command, "ask", lambda task, job, say: None)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "DATA", tmp_path)
    return tmp_path


def test_the_whole_command(pretended, capsys):
    page = pretended / "page.md"
    page.write_text(DOCUMENT)
    assert cli.main(["gpu", "--rounds", "1", "--nets", "numpy_cnn", "bilici", "--markdown", str(page)]) == 2
    file, = (pretended / "results").glob("*.json")
    assert file.name.startswith("nvidia-h200-20") and file.name.endswith(".json")
    found = json.loads(file.read_text())
    counts = {}
    for row in found:
        assert row["device"] == "NVIDIA H200" and row["date"].endswith("+00:00") and row["versions"] == {"CuPy": "0"}
        counts[row["part"]] = counts.get(row["part"], 0) + 1
    assert counts == {"steps": 4 * 4 + 2, "bandwidth": 3, "products": 4, "mnist": 5}    # torch-graph broke down at the second net
    ours = next(row for row in found if row["part"] == "steps" and row["contender"] == "cupy")
    assert (ours["of_eager"], ours["of_graph"], ours["targets"]) == (0.3, 0.6, {"of_eager": 0.25, "of_graph": 0.8})

    printed = capsys.readouterr()
    assert "1 processes broke down, so rows may be missing:\ntorch-graph: it fell over" in printed.err
    assert "compiled" in printed.err
    content = page.read_text()
    assert content.startswith("before\n") and content.endswith("after\n") and "old" not in content
    assert "| numpy_cnn | 32 | convolutions | 9600 | 64000 | 48000 | 32000 | 16000 | " \
           "0.30 (target 0.25, missed 1.20 times) | 0.60 |" in content
    assert "| numpy_cnn | 32 | convolutions | 100 (200) | 100 (200) | 100 (200) | 100 (200) | 100 (200) | 90 |" in content
    assert "| im2col | 2000 (50 %) | 2000 (50 %) | 1.70 times |" in content and "| a copy | 4000 | 4000 |  |" in content
    assert "| 6x5x4 | 1 | forward | 10 (0.50) | 10 | 10 (0.50) | 10 |" in content
    assert "| mnist | bilici | 128 | cupy | 99 % | 99.10 % | 2 | 4.00 | 1.00 | 1.00 |" in content
    assert "- cupy, bilici 32: not captured." in content
    assert "missed 1.70 times: bandwidth im2col 256: of_copy 0.50, target 0.85" in printed.out


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
    assert cli.main(["gpu", "--parts", "bandwidth", "--contenders", "cupy", "--json", str(file)]) == 0

    def stopped(task, job, say, timeout):
        for number, answer in enumerate(answers(task, job, say, timeout)):
            if number == 2:
                raise KeyboardInterrupt
            yield answer
    monkeypatch.setattr(parts, "stream", stopped)
    assert cli.main(["gpu", "--parts", "products", "--contenders", "cupy", "torch-nchw", "--json", str(file), "--merge"]) == 0
    assert len(json.loads(file.read_text())) == 3 + 4
    assert cli.main(["gpu", "--parts", "bandwidth", "--contenders", "cupy", "--json", str(file), "--merge"]) == 130
    assert len(json.loads(file.read_text())) == 3 + 4
    monkeypatch.setattr(parts, "stream", answers)
    assert cli.main(["gpu", "--parts", "bandwidth", "--contenders", "cupy", "--json", str(file)]) == 0
    assert len(json.loads(file.read_text())) == 3


def test_parts_stop_when_there_is_no_time(pretended, capsys):
    assert cli.main(["gpu", "--minutes", "0", "--contenders", "cupy"]) == 0
    error = capsys.readouterr().err
    assert "steps: no time left for cupy: see --minutes" in error and "no rows" in error


def test_everything_that_is_done_without_being_asked_for_ends_within_nine_minutes():
    assert sum(parts.BUDGET[part] for part in ("compile", "steps", "bandwidth", "products", "mnist")) <= 9 * 60
    assert set(parts.BUDGET) == {"compile", *rows.PARTS} and max(parts.BUDGET.values()) < 9 * 60


@pytest.mark.parametrize("arguments, message", [
    (["--merge"], "--merge: expected --json FILE"),
    (["--json", "none/x.json"], "--json: expected a file in a folder that exists."),
    (["--data", "none"], "--data: expected a folder. Received: none"),
    (["--markdown", "none.md"], "none.md"),
    (["--tables-only", "--json", "other.json"], "expected rows that this version of the GPU's benchmarks wrote."),
])
def test_files_are_checked_before_any_work(arguments, message, pretended, monkeypatch, capsys):
    monkeypatch.chdir(pretended)
    (pretended / "other.json").write_text('[{"part": "steps", "date": "d", "device": "x"}]')
    assert cli.main(["gpu", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_contenders_that_cannot_run(pretended, monkeypatch, capsys):
    monkeypatch.setattr(command, "ask", lambda task, job, say: "not here" if job.contender != "cupy" else None)
    assert cli.main(["gpu", "--contenders", "cupy", "torch-nhwc"]) == 2
    assert "expected contenders that can run here. Received: torch-nhwc: not here" in capsys.readouterr().err
    assert cli.main(["gpu", "--parts", "bandwidth"]) == 0
    assert "left out:\n  torch-nchw: not here" in capsys.readouterr().err


def test_pictures_that_are_not_there_are_said(pretended, monkeypatch, capsys):
    monkeypatch.setattr(command, "DATA", pretended / "none")
    monkeypatch.delenv("XPNET_HOME", raising=False)
    assert cli.main(["gpu", "--parts", "mnist", "cifar"]) == 0
    error = capsys.readouterr().err
    assert "mnist: left out: expected a folder with its pictures" in error and "cifar: left out" in error


def test_a_process_that_is_late_begins_nothing_new(monkeypatch):
    late = Job("cpu", "numpy", 1, cells=(("numpy_cnn", 1),), started=time.time() - 10, limit=5)
    assert list(steps.measure(late)) == [] and len(list(products.measure(late))) == 1
    monkeypatch.setattr(bandwidth, "MEGABYTES", (0.01, 0.02))
    assert len(list(bandwidth.measure(late))) == 2


# --- the first minutes --------------------------------------------------------------------------------------------------

def test_a_step_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    python = sys.executable
    monkeypatch.setattr(check, "commands", lambda folder, more: {
        "machine": [python, "-c", "print('a GPU'); raise SystemExit(3)"], "tests": ["no-such-program"],
        "memcheck": [python, "-c", "import os; print(os.environ['XPNET_REQUIRE_GPU'])"],
        "racecheck": ["compute-sanitizer"], "bench": [python, "-c", f"print({list(more)})"]})
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    steps = [step for step in check.STEPS if step != "compile"]
    assert check.main([str(tmp_path / "out"), "--steps", *steps, "--", "--parts", "cifar"]) == 1
    summary = (tmp_path / "out" / "summary.log").read_text()
    for text in (f"numpy {np.__version__}", "machine: exit status 3", "tests: exit status 127", "memcheck: well",
                 "racecheck: left out, compute-sanitizer is not installed", "bench: well"):
        assert text in summary
    assert (tmp_path / "out" / "bench.log").read_text() == "['--parts', 'cifar']\n"
    assert (tmp_path / "out" / "memcheck.log").read_text() == "1\n"
    assert "a GPU" in capsys.readouterr().out               # the end of what failed


def test_a_step_whose_time_is_over_is_ended_with_all_its_processes(tmp_path):
    code = "import subprocess, sys; print('x'); subprocess.run([sys.executable, '-c', 'import time; time.sleep(1000)'])"
    log = tmp_path / "log"
    assert check.run([sys.executable, "-c", code], log, 0.5) == check.FAILED
    assert "ended after" in log.read_text()


def test_the_steps_run_what_needs_a_gpu():
    todo = check.commands(Path("/out"), ["--minutes", "3"])
    assert tuple(todo) == check.STEPS and todo["bench"][-4:] == ["--json", "/out/rows.json", "--minutes", "3"]
    assert "gpu" in todo["tests"] and todo["compile"][-1] == "benchmarks.gpu.compiling"


def test_the_small_run_uses_every_layer_with_kernels_of_its_own(capsys):
    losses = small_run.train(get_backend("numpy"))
    assert all(eager == captured and np.isfinite(eager).all() for eager, captured in losses.values())
    assert "mixed: " in capsys.readouterr().out


# --- comparisons and tables ---------------------------------------------------------------------------------------------

def step(contender, seconds, net="numpy_cnn", batch=32, **other):
    return {"part": "steps", "net": net, "batch": batch, "tf32": "never", "contender": contender, "seconds": seconds,
            "memory": None, "reserved": None, "predicted": None} | other


def test_ours_is_compared_with_pytorch_at_the_same():
    found = rows.compared([step("cupy", 1.0), step("torch-nchw", 2.0), step("torch-nhwc", 4.0),
                           step("torch-graph", 1.0, batch=128), step("cupy", 9.0, tf32="always"), step("cupy-eager", 3.0),
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
    assert tables.missed([]) == tables.missed(rows.compared([step("cupy", 1.0)])) == ["no target was measured"]
    reached = rows.compared([step("cupy", 1.0), step("torch-nchw", 9.0)])
    assert tables.missed(reached) == ["every target that was measured is reached"]


def test_names_of_files():
    assert command.slug("NVIDIA H200") == "nvidia-h200" and command.slug("Tesla V100-SXM2") == "tesla-v100-sxm2"
    assert set(CONTENDERS["gpu"]) < set(tables.ORDER)


# --- on a GPU -----------------------------------------------------------------------------------------------------------

@pytest.mark.gpu
def test_our_side_on_a_gpu(monkeypatch):
    backend = gpu_or_skip()
    monkeypatch.setattr(steps, "BATCHES", 6)
    for contender in ("cupy", "cupy-eager"):
        answers = list(steps.measure(Job("gpu", contender, 1, cells=(("numpy_cnn", 4),), seconds=0.0)))
        row = answers[1]["row"]
        assert row["seconds"] > 0 and row["reserved"] > 0 and row["memory"] > 4 * 105_634 * 4 and answers[0]["about"]["device"]
    monkeypatch.setattr(bandwidth, "ROTATED", 0)
    found = list(bandwidth.measure_kernels(backend, timing.backend_timer(backend), (0.25,)))
    assert len(found) == len(bandwidth.KERNELS) and all(row["of_copy"] > 0 for row in found)
    monkeypatch.setattr(products.measure_shapes, "__defaults__", (products.SHAPES[-4:-2],))
    assert len(list(products.measure(Job("gpu", "cupy", 1, tf32="always")))) == 1 + 2 * 3


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Please use the new API")        # some versions say so of allow_tf32
def test_pytorchs_side_on_a_gpu(monkeypatch, torch):
    gpu_or_skip()
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU that it can use")
    monkeypatch.setattr(steps, "BATCHES", 6)
    for contender in ("torch-nchw", "torch-nhwc", "torch-graph"):
        *_, answer = steps.measure(Job("gpu", contender, 1, cells=(("bilici", 4),), seconds=0.0))
        assert answer["row"]["seconds"] > 0 and answer["row"]["memory"] > 4 * 954_002 * 4
    monkeypatch.setattr(products.measure_shapes, "__defaults__", (products.SHAPES[-4:-2],))
    assert len(list(products.measure(Job("gpu", "torch", 1, tf32="never")))) == 1 + 2 * 3
