"""What the GPU's benchmarks measure, without a GPU: NumPy and PyTorch on the CPU stand in."""

import io
import math
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from gpu import gpu_or_skip

from benchmarks.contenders import Job
from benchmarks.gpu import accuracy, bandwidth, peak_memory, plans, products, rows, steps, timing
from benchmarks.gpu.accuracy import Goal
from xpnet import get_backend
from xpnet.data import Dataset

CPU = Job("cpu", "numpy", 1, seconds=0.0)


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install '
                                                '"xpnet[bench]"')
    threads = torch.get_num_threads()
    yield torch
    torch.set_num_threads(threads)


def found_in(answers, what="row"):
    return [answer[what] for answer in answers if what in answer]


# --- steps ----------------------------------------------------------------------------------------

def test_times_leave_out_the_first_epochs_and_end_when_there_are_enough():
    times = steps.Times(1.0)
    # three that count, but 0.9 s
    assert [times(seconds) for seconds in (9.0, 8.0, 0.5, 0.3, 0.1)] == [False] * 5
    assert times(0.2) and times.median() == 0.25
    assert not steps.Times(0.0)(5.0)


@pytest.mark.parametrize("contender", ["numpy", "torch-nchw", "torch-nhwc"])
def test_a_contender_trains_over_its_data_set(contender, monkeypatch, torch):
    monkeypatch.setattr(steps, "BATCHES", 3)
    job = Job("cpu", contender, 1, cells=(("numpy_cnn", 4), ("bilici", 2)), seconds=0.0)
    answers = list(steps.measure(job))
    assert all("kernels" in about for about in found_in(answers, "about"))
    assert [answer for answer in answers if "item" in answer] == [{"item": 0}, {"item": 1}]
    assert ([(row["net"], row["batch"]) for row in found_in(answers)]
            == [("numpy_cnn", 4), ("bilici", 2)])
    for row in found_in(answers):
        assert row["seconds"] > 0 and row["memory"] is None


@pytest.mark.parametrize("contender", ["numpy", "torch-nhwc", "torch-nchw"])
def test_it_learns_what_can_be_learned(contender, torch):
    """Classes that a picture's brightness tells: the loss of the last epoch is far below that of
    the first."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    images = (rng.standard_normal((64, 1, 28, 28)) + 2 * labels[:, None, None, None]).astype(
        np.float32)
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
    epochs = torch_steps.TorchEpochs(Job("cpu", "torch-graph", 1), "numpy_cnn", 2, layout, images,
                                     labels)
    epochs.train(3, lambda seconds: True)
    seen = {int(n) for x, found in epochs.runner.read for image, label in zip(x, found)
            for n in range(6) if np.array_equal(images[n], image.numpy()) and labels[n] == label}
    assert seen == set(range(6)) and len(epochs.runner.read) == 3


def test_torch_graph_runs_in_both_layouts_and_ours_says_how(torch):
    assert ([make.args[-1] for make in steps.contestants(Job("gpu", "torch-graph", 1), "bilici", 8)]
            == ["nchw", "nhwc"])
    assert ([make.args[-1] for make in steps.contestants(Job("gpu", "torch-nhwc", 1), "bilici", 8)]
            == ["nhwc"])
    assert Job("gpu", "cupy-eager", 1).backend == "cupy"


def test_cupy_eager_is_fit_that_does_not_capture(monkeypatch):
    from xpnet.network import Network
    asked = []
    monkeypatch.setattr(Network, "fit", lambda self, x, y, **options: asked.append(options)
                        or {"loss": [1.0]})
    for contender in ("numpy", "numpy-eager"):
        epochs = steps.XpnetEpochs(Job("cpu", contender, 1), "numpy_cnn", 2,
                                   *steps.samples("numpy_cnn", 4))
        assert epochs.train(1, lambda seconds: True) == 1.0
    assert "capture" not in asked[0] and asked[1]["capture"] is False


def test_a_loss_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setattr(steps.XpnetEpochs, "train", lambda self, batches,
                        until: [until(1.0) for _ in range(9)] and math.nan)
    monkeypatch.setattr(steps.XpnetEpochs, "memory", lambda self: {})
    with pytest.raises(RuntimeError, match="numpy: expected numpy_cnn to train. Received: a loss "
                                           "of nan"):
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


# --- memory ---------------------------------------------------------------------------------------

def test_the_peak_counts_what_hooks_tell():
    """With CuPy's hooks stood in for: arrays that come and go, and pools that take memory in larger
    pieces and give it back."""
    class MemoryHook:
        def __enter__(self):
            current.append(self)
            return self

        def __exit__(self, *_):
            current.clear()
    current = []
    freed = []
    pool = SimpleNamespace(free_all_blocks=lambda: freed.append(True))
    free = [5000]
    runtime = SimpleNamespace(memGetInfo=lambda: (free[0], 9000))
    xp = SimpleNamespace(cuda=SimpleNamespace(MemoryHook=MemoryHook, runtime=runtime),
                         get_default_memory_pool=lambda: pool)
    backend = SimpleNamespace(name="cupy:0", xp=xp, synchronize=lambda: None)

    def work():
        hook, = current
        free[0] = 4000
        hook.alloc_postprocess(device_id=0, mem_size=1000, mem_ptr=1)
        hook.malloc_postprocess(device_id=0, size=500, mem_size=512, mem_ptr=1, pmem_id=1)
        hook.malloc_postprocess(device_id=0, size=100, mem_size=512, mem_ptr=2, pmem_id=2)
        hook.free_postprocess(device_id=0, mem_size=512, mem_ptr=1, pmem_id=1)
        hook.free_postprocess(device_id=0, mem_size=9999, mem_ptr=7, pmem_id=7)  # was there before
        hook.malloc_postprocess(device_id=0, size=1, mem_size=256, mem_ptr=3, pmem_id=3)
        # there was not enough
        hook.malloc_postprocess(device_id=0, size=1, mem_size=256, mem_ptr=0, pmem_id=0)
        hook.alloc_postprocess(device_id=0, mem_size=1000, mem_ptr=0)
        free[0] = 4500                          # one pool gave memory back, another took 500 bytes
        hook.alloc_postprocess(device_id=0, mem_size=500, mem_ptr=4)
    assert peak_memory.peak_of(backend, work) == {"memory": 1024, "reserved": 1000} and freed


def test_cupys_hooks_are_called_as_ours_expect():
    cupy = pytest.importorskip("cupy", reason='CuPy is not installed: pip install "xpnet[cuda13]"')
    for name, arguments in (("malloc_postprocess", ("mem_size", "pmem_id")),
                            ("free_postprocess", ("pmem_id",)),
                            ("alloc_postprocess", ("mem_size", "mem_ptr"))):
        text = getattr(cupy.cuda.MemoryHook, name).__doc__
        assert all(f"{argument}(int)" in text for argument in arguments)


# --- bandwidth ------------------------------------------------------------------------------------

def test_bandwidth_counts_every_byte_that_has_to_move(monkeypatch):
    monkeypatch.setattr(bandwidth, "ROTATED", 0)
    found = {}
    backend, n = get_backend("numpy"), 2**21
    for kernel in bandwidth.KERNELS:
        call, moved, shape = kernel(backend, n)
        call()
        found[kernel.__name__] = moved / (4 * math.prod(shape))         # in the bytes of x
    pooled = 1 / 4 + 1 / 16  # float32, and a byte for each argmax
    assert found == pytest.approx({
        "im2col": 10, "col2im": 10, "max_pool2d": 1 + pooled, "max_pool2d_dx": 1 + pooled,
        "avg_pool2d": 1.25,
        "avg_pool2d_dx": 1.25, "dropout": 2.25, "dropout_dx": 2.25, "batch_norm": 3,
        "batch_norm_backward": 7,
        "batch_norm_inference": 2, "softmax_cross_entropy": 2 + 2 / 1000, "activate": 2,
        "activation_backward": 3, "sgd": 5,
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
    def measured(first):
        answers = bandwidth.measure_kernels(replace(CPU, first=first), get_backend("numpy"),
                                            lambda call: 0.5, (0.25, 0.5))
        return [(row["kernel"], row["megabytes"], row["of_copy"]) for row in found_in(answers)]
    assert measured(0) == [
        ("activate", 0.5, 1.0), ("sgd", 0.5, 2.5), ("activate", 0.25, 1.0), ("sgd", 0.25, 2.5)]
    assert measured(3) == [("sgd", 0.25, 2.5)]


def test_events_time_calls_that_stand_in_the_queue_already():
    log = []

    class Event:
        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("wait")
    timer = timing.event_timer(Event, lambda start, stop: 40e-3, lambda: log.append("hold"),
                               lambda event: False)
    assert timer(lambda: log.append("call")) == 40e-3
    sample = ["hold", "record", "call", "record", "wait"]
    assert log == ["call"] * timing.WARM_UP + sample * (1 + timing.FEWEST_SAMPLES)
    log.clear()
    timer = timing.event_timer(Event, lambda start, stop: 1e-6, lambda: None, lambda event: False)
    timer(lambda: log.append("call"))
    assert log.count("call") == timing.WARM_UP + 1 + timing.REPEATS * timing.SAMPLES
    # the GPU goes on before all calls are queued, until it has four times as much other work
    log.clear()
    timer = timing.event_timer(Event, lambda start, stop: 40e-3, lambda: log.append("hold"),
                               lambda event: log[-2] == "record" and log.count("hold") < 7)
    timer(lambda: log.append("call"))
    once = ["record", "call", "record", "wait"]
    assert log[timing.WARM_UP:] == ["hold", *once, "hold", "hold", *once, *["hold"] * 4, *once,
                                    *(["hold"] * 4 + once) * timing.FEWEST_SAMPLES]


# --- products -------------------------------------------------------------------------------------

def test_both_sides_do_the_same_products_and_convolutions(torch, monkeypatch):
    """Same operations, so results of the same number of elements, in each direction."""
    from benchmarks.gpu import torch_products
    small = ((products.Product(6, 5, 4), 1), (products.Convolution(4, 6, 3, 8, "half", 2, 2), 2))
    for what, batch in small:
        ours = ({direction: np.asarray(call()).size
                 for direction, call in products.our_calls(get_backend("numpy"), what, batch)})
        assert list(ours) == list(products.DIRECTIONS)
        theirs = ([(direction, call())
                   for direction, call in torch_products.torch_calls(CPU, what, batch)])
        # convolutions in two layouts
        assert len(theirs) == (3 if isinstance(what, products.Product) else 6)
        for direction, result in theirs:
            found = (next(part for part in result if part is not None) if isinstance(result, tuple)
                     else result)
            assert found.numel() == ours[direction]


@pytest.mark.parametrize("contender", ["numpy", "torch"])
def test_products_are_measured(contender, torch, monkeypatch):
    monkeypatch.setattr(products.measure_shapes, "__defaults__",
                        (((products.Product(6, 5, 4), 1),),))
    about, item, *answers = products.measure(Job("cpu", contender, 1))
    assert "kernels" in about["about"] and item == {"item": 0}
    assert [(a["row"]["product"], a["row"]["direction"]) for a in answers] == [
        ("6x5x4", direction) for direction in ("forward", "input", "filters")]
    assert all(a["row"]["flops_per_second"] == 240 / a["row"]["seconds"] for a in answers)


def test_the_faster_of_several_calls_counts():
    seconds = iter([3.0, 5.0, 4.0, 2.0, 6.0, 1.0])

    def calls(what, batch):
        for _ in range(2):
            yield from ((direction, lambda: None) for direction in products.DIRECTIONS)
    found = products.measure_shapes(CPU, calls, lambda call: next(seconds),
                                    ((products.Product(1, 1, 1), 1),))
    assert [row["seconds"] for row in found_in(found)] == [2.0, 5.0, 1.0]


def test_products_have_names_of_their_own():
    names = [(what.name, batch) for what, batch in products.SHAPES]
    assert len(set(names)) == len(names)


# --- plans ----------------------------------------------------------------------------------------

def test_all_ways_of_a_key_are_timed_once_and_the_best_is_used():
    ran, seconds = [], {"usual": 1.0, "a": 0.5, "b": 0.99}
    recorder = plans.Recorder(lambda call: seconds[call()], lambda: False)

    def run(way):
        ran.append(way)
        # asked for within itself
        assert recorder("key", "usual", lambda: ("a",), run=None) == "usual"
        return way
    assert ([recorder("key", "usual", lambda: ("a", "usual", "b"), run) for _ in range(2)]
            == ["a", "a"])
    assert ran == ["usual", "a", "b"]
    # too little gained
    assert recorder("other", "usual", lambda: ("b",), lambda way: way) == "usual"
    assert [(row["key"], row["best"], row["seconds"], row["usual_seconds"])
            for row in recorder.rows] == [
        ("key", "a", 0.5, 1.0), ("other", "usual", 1.0, 1.0)]
    assert plans.Recorder(lambda call: 1.0, lambda: True)("key", "usual", lambda: ("a",),
                                                          run) == "usual"


def test_the_table_of_plans_keeps_what_was_not_measured():
    def found(key, best):
        return {"key": key, "usual": 0, "best": best, "architecture": "sm_90"}
    old = {"sm_90": {"a": 1, "b": 1}, "sm_80": {"a": 2}}
    assert plans.table([found("c", [64, 64, 2]), found("a", 0)], old) == {
        "sm_80": {"a": 2}, "sm_90": {"b": 1, "c": [64, 64, 2]}}
    assert old["sm_90"] == {"a": 1, "b": 1} and plans.table([found("a", 0)], {}) == {}


# --- to an accuracy -------------------------------------------------------------------------------

def data_of(x, y, tested):
    """All for training, some for testing, as bytes that are not divided."""
    return Dataset(x, y, classes=list("0123456789"), scale=None, test=Dataset(
        x[:tested], y[:tested], classes=list("0123456789"), scale=None))


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
    about, answer = accuracy.train_mnist(job, data_of(x, y, 64), goal)
    row = answer["row"]
    assert row["accuracy"] >= 0.9 and 1 <= row["epochs"] <= 6 and row["seconds"] > 5
    never = Goal("mnist", "bilici", 32, 2.0, 2)
    row = list(accuracy.train_mnist(job, data_of(x, y, 64), never))[1]["row"]
    assert row["epochs"] == 2 and row["accuracy"] <= 1
    assert "kernels" in about["about"]


@pytest.mark.parametrize("contender", ["numpy", "torch-nhwc"])
def test_cifar_trains_with_crops_and_flips(contender, torch, monkeypatch):
    from benchmarks import xpnet_side
    monkeypatch.setitem(xpnet_side.NETS, "resnet18", lambda shape,
                        backend: xpnet_side.NETS["vgg_small"](shape, backend=backend))
    if contender.startswith("torch"):
        from benchmarks import torch_nets
        monkeypatch.setitem(torch_nets.NETS, "resnet18", torch_nets.NETS["vgg_small"])
    x, y = bright(64, (3, 32, 32), 0)
    goal = Goal("cifar", "resnet18", 32, 2.0, 2)  # never reached
    _, answer = accuracy.train_cifar(Job("cpu", contender, 1), data_of(x, y, 64), goal)
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


def test_pytorchs_side_crops_and_flips(torch):
    from benchmarks.gpu.torch_cifar import TorchTrainer
    trainer = TorchTrainer.__new__(TorchTrainer)
    trainer.device = torch.device("cpu")
    x, _ = bright(9, (3, 32, 32), 1)
    theirs, rng = np.random.default_rng(3), np.random.default_rng(3)
    changed = trainer.flipped(trainer.cropped(torch.tensor(x), theirs), theirs).numpy()
    top, left = rng.integers(0, 9, (2, 9))
    mirrored = rng.random(9) < 0.5
    padded = np.pad(x, ((0, 0), (0, 0), (4, 4), (4, 4)))
    for n in range(9):
        image = padded[n, :, top[n]:top[n] + 32, left[n]:left[n] + 32]
        np.testing.assert_array_equal(changed[n], image[..., ::-1] if mirrored[n] else image)


def test_jpegs_are_read(tmp_path):
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")
    (tmp_path / "cifar10").mkdir()
    files = []
    for value in (0, 128, 255):
        file = io.BytesIO()
        Image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(file, "JPEG")
        files.append(file.getvalue())
    content = {"jpeg": np.frombuffer(b"".join(files), np.uint8),
               "offsets": np.cumsum([0, *map(len, files)]),
               "labels": np.array([1, 2, 3], np.uint8)}
    parts = {f"{part}_{name}": array for part in ("train", "test")
             for name, array in content.items()}
    np.savez(tmp_path / "cifar10" / "cifar10-jpeg.npz", classes=np.array(list("0123456789")),
             **parts)
    data = accuracy.read_cifar(str(tmp_path))
    assert data.shape == (3, 32, 32) and len(data) == 3 and data.test.dtype == np.uint8
    assert ([int(picture.mean()) for picture in data.test[:][0]] == [0, 128, 255]
            and data.labels.tolist() == [1, 2, 3])


# --- on a GPU -------------------------------------------------------------------------------------

@pytest.mark.gpu
def test_our_side_on_a_gpu(monkeypatch):
    backend = gpu_or_skip()
    monkeypatch.setattr(steps, "BATCHES", 6)
    for contender in ("cupy", "cupy-eager"):
        answers = (
            list(steps.measure(Job("gpu", contender, 1, cells=(("numpy_cnn", 4),), seconds=0.0))))
        row, = found_in(answers)
        # What is reserved follows from the memory that is free, which other processes change, too.
        assert (row["seconds"] > 0 and row["reserved"] >= 0 and row["memory"] > 4 * 105_634 * 4
                and found_in(answers, "about")[0]["device"])
    monkeypatch.setattr(bandwidth, "ROTATED", 0)
    found = found_in(bandwidth.measure_kernels(Job("gpu", "cupy", 1), backend,
                                               timing.backend_timer(backend), (0.25,)))
    assert len(found) == len(bandwidth.KERNELS) and all(row["of_copy"] > 0 for row in found)
    monkeypatch.setattr(products.measure_shapes, "__defaults__", (products.SHAPES[-4:-2],))
    assert len(found_in(products.measure(Job("gpu", "cupy", 1, tf32="always")))) == 2 * 3


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Please use the new API")  # some versions say so of allow_tf32
def test_pytorchs_side_on_a_gpu(monkeypatch, torch):
    gpu_or_skip()
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU that it can use")
    monkeypatch.setattr(steps, "BATCHES", 6)
    for contender in ("torch-nchw", "torch-nhwc", "torch-graph"):
        *_, answer = steps.measure(Job("gpu", contender, 1, cells=(("bilici", 4),), seconds=0.0))
        assert answer["row"]["seconds"] > 0 and answer["row"]["memory"] > 4 * 954_002 * 4
    monkeypatch.setattr(products.measure_shapes, "__defaults__", (products.SHAPES[-4:-2],))
    assert len(found_in(products.measure(Job("gpu", "torch", 1, tf32="never")))) == 2 * 3
