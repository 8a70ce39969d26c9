"""PyTorch's side of the benchmarks: the same networks as ours, and steps that are what they are
called."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import contenders, sides
from benchmarks.contenders import Job
from benchmarks.xpnet_side import NETS, WIDE
from xpnet import PREDICT, TRAIN, CrossEntropy


@pytest.fixture
def torch_side():
    pytest.importorskip("torch", reason='PyTorch is not installed: pip install "xpnet[bench]"')
    import torch

    from benchmarks import torch_side
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch_side
    torch.set_num_threads(threads)


@pytest.fixture
def torch_nets(torch_side):
    from benchmarks import torch_nets
    return torch_nets


def relative_error(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("name", NETS)
def test_both_sides_compute_the_same_network(name, torch_nets, monkeypatch):
    """In float64: in float32 a single ReLU that rounding puts on the other side of its kink would
    hide what is compared."""
    import torch
    # they take any size, and their structure is the same
    small = {"resnet18": (3, 16, 16), "resnet50": (3, 64, 64)}
    monkeypatch.setitem(contenders.INPUT_SHAPES, name,
                        small.get(name, contenders.INPUT_SHAPES[name]))
    net = NETS[name](contenders.INPUT_SHAPES[name], backend="numpy", dtype="float64", seed=1)
    model = torch_nets.NETS[name]().double()
    torch_nets.copy_parameters(net, model)
    images, labels = contenders.sample_batch(name, 3)
    x, t = net.batch_last(images), torch.tensor(images, dtype=torch.float64)

    model.eval()
    assert relative_error(net.forward(x, PREDICT).T, model(t).detach().numpy()) < 1e-8

    model.train()
    their_loss = torch.nn.CrossEntropyLoss()(model(t), torch.tensor(labels))
    their_loss.backward()
    loss, dy = CrossEntropy()(net.backend, net.forward(x, TRAIN), labels)
    net.backward(dy)
    assert float(loss) == pytest.approx(their_loss.item(), rel=1e-8)
    ours = [p.grad.ravel() for layer in net.layers for p in layer.parameters]
    theirs = [p.grad.numpy().ravel() for p in model.parameters()]
    # the bias before a batch norm has no gradient of its own
    everything = np.linalg.norm(np.concatenate(theirs))
    for mine, their in zip(ours, theirs, strict=True):
        assert np.linalg.norm(mine - their) < 1e-8 * everything

    model.eval()  # now with the running statistics of one batch
    assert relative_error(net.forward(x, PREDICT).T, model(t).detach().numpy()) < 1e-8


@pytest.mark.parametrize("width", [0.5, 2])
@pytest.mark.parametrize("name", WIDE)
def test_both_sides_widen_the_same_way(name, width, torch_nets, torch_side):
    net, model = WIDE[name](backend="numpy", width=width), torch_nets.WIDE[name](width)
    torch_nets.copy_parameters(net, model)
    runner = torch_side.Eager(Job("cpu", "torch-nchw", 1, name, width=width), "nchw", 1)
    assert runner.model[0].weight.shape == model[0].weight.shape


@pytest.mark.parametrize("name", NETS)
def test_pytorch_trains_on_a_single_sample_too(name, torch_side):
    runner = torch_side.Eager(Job("cpu", "torch-nhwc", 1, name), "nhwc", 1)
    assert runner.finite(runner.step("train")())


def test_copied_parameters_must_fit(torch_nets):
    with pytest.raises(ValueError, match="copy_parameters: expected shape"):
        torch_nets.copy_parameters(NETS["numpy_cnn"](backend="numpy"), torch_nets.NETS["bilici"]())


def test_resnet50_has_the_parameters_that_torchvisions_has(torch_nets):
    assert sum(p.numel() for p in torch_nets.NETS["resnet50"]().parameters()) == 25_557_032


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_eager_pytorch_trains_and_predicts(layout, torch_side):
    import torch
    runner = (torch_side.Eager(Job("cpu", f"torch-{layout}", 1, "bilici",
                                   fused_adam=layout == "nhwc"), layout, 4))
    train = runner.step("train")
    assert runner.model.training
    losses = [train().item() for _ in range(10)]
    assert losses[-1] < losses[0]
    predict = runner.step("predict")
    assert not runner.model.training and runner.finite(predict()) and not predict().requires_grad
    conv = runner.model[4].weight                           # (32, 8, 5, 5)
    assert conv.is_contiguous(memory_format=torch.channels_last) == (layout == "nhwc")
    assert (runner.about()["versions"] == {"PyTorch": torch.__version__}
            and "kernels" in runner.about()["kernels"])


def test_a_captured_step_follows_pytorchs_recipe(torch_side, monkeypatch):
    """Without a GPU: what is called and in which order. Warm-up on a side stream, no gradients, one
    captured step, replays."""
    import torch
    log = []

    class Stream:
        def __init__(self, name="side"):
            self.name = name

        def wait_stream(self, other):
            log.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def logged(name):
        log.append(f"enter {name}")
        yield
        log.append(f"leave {name}")

    main = Stream("main")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: logged(stream.name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph",
                        lambda: SimpleNamespace(replay=lambda: log.append("replay")))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: logged("capture"))

    runner = torch_side.Captured.__new__(torch_side.Captured)
    runner.model = torch.nn.Linear(2, 1)
    runner.optimizer = (
        SimpleNamespace(zero_grad=lambda set_to_none: log.append(f"gradients None: {set_to_none}")))
    runner.train = lambda: log.append("step") or torch.zeros(())
    replay = runner.step("train")
    assert log == ["side waits for main", "enter side", *["step"] * 3, "leave side",
                   "main waits for side",
                   "gradients None: True", "enter capture", "step", "leave capture"]
    log.clear()
    assert replay().item() == 0 and log == ["replay"]


def test_a_contender_is_named_after_its_layout(torch_side, monkeypatch):
    monkeypatch.setattr(torch_side, "Eager", lambda job, layout, batch: (layout, batch))
    assert sides.runner(Job("cpu", "torch-nhwc", 1), 4) == ("nhwc", 4)


@pytest.mark.parametrize("number", range(9))
def test_both_sides_compute_the_same_recurrent_layer(torch_side, number, monkeypatch):
    """With our parameters in theirs: the input gradient of a training step, or the prediction."""
    import torch

    import xpnet as xn
    from benchmarks import recurrent, torch_recurrent
    case = recurrent.RECURRENT[number]
    ours, theirs, made = [], [], torch_recurrent.LAYERS[case.layer]

    def kept(*args, **options):
        theirs.append(made(*args, **options))
        return theirs[-1]

    def initialize(self, *shapes, **options):
        ours.append(self)
        return initialized(self, *shapes, **options)

    initialized = xn.Layer.initialize
    monkeypatch.setattr(xn.Layer, "initialize", initialize)
    monkeypatch.setitem(torch_recurrent.LAYERS, case.layer, kept)
    step = recurrent.step(case, xn.get_backend("numpy"))
    their_step = torch_recurrent.step(case, 1)
    scan, layer = ours[0].scans[0][0], theirs[0]
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.tensor(scan.W.data))
        layer.weight_hh_l0.copy_(torch.tensor(scan.U.data))
        layer.bias_ih_l0.copy_(torch.tensor(scan.b.data))
        layer.bias_hh_l0.zero_()
    value = step()
    value = value[0] if isinstance(value, tuple) else value             # dx, or y
    assert relative_error(value, their_step().permute(2, 1, 0).numpy()) < 1e-5
