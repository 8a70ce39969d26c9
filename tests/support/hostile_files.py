"""Good files of all kinds, which are damaged, and a check that a reader reads or refuses them as it
must.

A reader either returns, or raises one of the library's errors of one line, within a time and an
amount of memory, without a warning, and a network in memory keeps its bits. As a program:

    python hostile_files.py KIND COUNT [SEED]   # e.g. onnx 10000; prints counts, and what is wrong
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import re
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from damage import Rng, about_changed, bytes_changed, graph_changed, in_archive, lines_changed
from nets import branches, small
from torch_files import Tensor, save, save_legacy, torch_modules
from torch_states import network

import xpnet as xn
from xpnet.io.darknet.cfg import parse
from xpnet.io.darknet.table import build
from xpnet.io.darknet.weights import bytes_of

SECONDS = 2                     # of processor time for a file
MEMORY = 64 << 20               # bytes, and four times the file
Change = Callable[[bytes, Rng], bytes]


@dataclass
class Case:
    """One good file and its reader.

    Attributes:
        good: the bytes that are changed.
        write: makes the file of changed bytes.
        read: reads it.
        change: returns changed bytes.
        net: a network that must not change if the file is refused.
    """

    good: bytes
    write: Callable[[bytes], object]
    read: Callable[[], object]
    change: Change = bytes_changed
    net: xn.Network | None = None


# --- the check ------------------------------------------------------------------------------------

class SlowError(BaseException):
    """A reader took longer than SECONDS."""


@contextlib.contextmanager
def limited_time() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise SlowError
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def limited_memory(most: float) -> Iterator[None]:
    """Fails if Python allocates `most` bytes or more in the block."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most


def bits(net: xn.Network | None) -> str:
    made = hashlib.sha256()
    for name, array in ({} if net is None else net.arrays).items():
        made.update(name.encode() + array.data.tobytes())
    return made.hexdigest()


def fault(error: BaseException) -> str | None:
    """What is wrong with an error; None if it is one of the library's."""
    text = str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    told = f"{type(error).__name__}: {text[:300]} [{Path(where.filename).name}:{where.lineno}]"
    if not isinstance(error, ValueError | TypeError | OSError | MemoryError):
        return told
    if "\n" in text or len(text) > 9000 or ": expected" not in text or "Received: " not in text:
        return told
    return None


def outcome(case: Case, content: bytes) -> tuple[str, str | None]:
    """("read" or the type of the error, what is wrong or None)."""
    case.write(content)
    before = bits(case.net)
    tracemalloc.reset_peak()
    held, _ = tracemalloc.get_traced_memory()
    wrong: str | None = None
    try:
        with warnings.catch_warnings(), limited_time():
            warnings.simplefilter("error")
            case.read()
        ending = "read"
    except BaseException as error:      # all kinds of errors are counted
        if isinstance(error, KeyboardInterrupt):
            raise
        ending, wrong = type(error).__name__, fault(error)
    _, peak = tracemalloc.get_traced_memory()
    if peak - held > 4 * len(content) + MEMORY:
        wrong = wrong or f"{(peak - held) >> 20} MB of memory"
    if ending != "read" and bits(case.net) != before:
        wrong = wrong or "the network in memory has changed"
    return ending, wrong


def damaged(cases: Sequence[Case], rng: Rng, *, count: int | None = None,
            seconds: float | None = None) -> Iterator[tuple[bytes, str, str | None]]:
    """Damage files until there were `count` or `seconds` of them; yields each with its outcome."""
    end = time.process_time() + (seconds or 1e9)
    done = 0
    tracemalloc.start()
    try:
        while (count is None or done < count) and time.process_time() < end:
            case = cases[done % len(cases)]
            content = case.change(case.good, rng)
            yield (content, *outcome(case, content))
            done += 1
    finally:
        tracemalloc.stop()


# --- good files -----------------------------------------------------------------------------------

def state() -> dict[str, np.ndarray]:
    """What such a network is in PyTorch."""
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (3, 2, 2, 2), "0.bias": (3,), "1.weight": (3,), "1.bias": (3,),
              "1.running_mean": (3,), "1.running_var": (3,), "2.weight": (3, 3, 2, 2),
              "2.bias": (3,), "4.weight": (4, 12), "4.bias": (4,)}
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


def case_of(path: Path, read: Callable[[], object], change: Change = bytes_changed,
            net: xn.Network | None = None) -> Case:
    return Case(path.read_bytes(), path.write_bytes, read, change, net)


def onnx_cases(folder: Path) -> Iterator[Case]:
    nets = [xn.Sequential([
        xn.Conv2d(2, 3, padding=1), xn.BatchNorm2d(activation="relu"), xn.Upsample2d(2, "bilinear"),
        xn.MaxPool2d(2), xn.GLU(), xn.ZeroPad2d(1), xn.Flatten(), xn.Reshape((3, 12)), xn.GRU(2),
        xn.Softmax()], input_shape=(1, 4, 4), backend="numpy"),
        xn.Sequential([
            xn.ConvTranspose2d(2, 2, stride=2), xn.AvgPool2d(2), xn.InstanceNorm2d(), xn.PReLU(),
            xn.LocalResponseNorm(3), xn.Reshape((2, 16)), xn.LayerNorm(), xn.LSTM(3), xn.Flatten(),
            xn.Linear(4, activation="gelu")], input_shape=(1, 4, 4), backend="numpy"),
        branches()]
    for number, net in enumerate(nets):
        path = folder / f"{number}.onnx"
        net.export(path)
        for change in (bytes_changed, graph_changed):
            yield case_of(path, lambda path=path: xn.io.load_onnx(path, backend="numpy"), change)


CFG = """[net]
height=8
width=8
channels=2
[convolutional]
batch_normalize=1
filters=4
size=3
pad=1
stride=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=4
size=1
activation=mish
[shortcut]
from=-2
activation=linear
[upsample]
stride=2
[route]
layers=-1,0
groups=2
group_id=1
[reorg]
stride=2
[avgpool]
[scale_channels]
from=-2
[convolutional]
filters=21
size=1
activation=linear
[yolo]
mask=0,1,2
anchors=1,2, 3,4, 5,6
classes=2
num=3
[route]
layers=4
[local]
filters=2
size=3
[crop]
crop_height=4
crop_width=4
[dropout]
probability=.5
[connected]
output=5
activation=relu
[softmax]
groups=1
"""


def darknet_files(folder: Path) -> tuple[Path, Path]:
    cfg, weights = folder / "net.cfg", folder / "net.weights"
    cfg.write_text(CFG)
    xn.io.save_darknet(xn.io.load_darknet(cfg, backend="numpy"), folder / "b.cfg", weights)
    return cfg, weights


def cfg_cases(folder: Path) -> Iterator[Case]:
    """With a weights file, sizes are compared before memory is asked for."""
    cfg, weights = darknet_files(folder)

    def initial() -> object:
        """The network with initial values, unless the file describes a large one."""
        built = build(parse(cfg.read_text("utf-8", "replace"), str(cfg)))
        return bytes_of(built.stored) > 1 << 20 or xn.io.load_darknet(cfg, backend="numpy")

    for change in (lines_changed, bytes_changed):
        yield case_of(cfg, lambda: xn.io.load_darknet(cfg, weights, backend="numpy"), change)
        yield case_of(cfg, initial, change)


def weights_cases(folder: Path) -> Iterator[Case]:
    cfg, weights = darknet_files(folder)
    yield case_of(weights, lambda: xn.io.load_darknet(cfg, weights, backend="numpy"))


def torch_cases(folder: Path) -> Iterator[Case]:
    from collections import OrderedDict
    net = network()
    named = OrderedDict((name, Tensor(array)) for name, array in state().items())
    with torch_modules():
        for path, change in ((save(named, folder / "a.pth"), in_archive),
                             (save(named, folder / "a.pth"), bytes_changed),
                             (save_legacy(named, folder / "b.pth"), bytes_changed)):
            yield case_of(path, lambda path=path: net.load_torch(path), change, net)


def torch_safetensors_cases(folder: Path) -> Iterator[Case]:
    from safetensors.numpy import save_file
    net, path = network(), folder / "a.safetensors"
    save_file(state(), path)
    yield case_of(path, lambda: net.load_torch(path), bytes_changed, net)
    yield case_of(path, lambda: net.load_torch(path, strict=False), bytes_changed, net)


def safetensors_cases(folder: Path) -> Iterator[Case]:
    for number, net in enumerate((small(), branches())):
        path = folder / f"{number}.safetensors"
        net.save(path)
        yield case_of(path, lambda path=path, net=net: net.load(path), bytes_changed, net)
        yield case_of(path, lambda path=path: xn.load(path, backend="numpy"), about_changed)


def keras_cases(folder: Path) -> Iterator[Case]:
    import h5py
    net, path = network(), folder / "a.weights.h5"
    arrays, turned = [*state().values()], (2, 3, 1, 0)
    with h5py.File(path, "w") as file:
        for name, held in (("conv2d", [arrays[0].transpose(turned), arrays[1]]),
                           ("batch_normalization", arrays[2:6]),
                           ("conv2d_1", [arrays[6].transpose(turned), arrays[7]]),
                           ("dense", [arrays[8].T, arrays[9]])):
            for number, array in enumerate(held):
                file[f"layers/{name}/vars/{number}"] = array
    yield case_of(path, lambda: net.load_keras(path), bytes_changed, net)


def idx_cases(folder: Path) -> Iterator[Case]:
    array = np.arange(120, dtype=">i2").reshape(4, 5, 6)
    good = struct.pack(">HBB3I", 0, 0x0B, 3, *array.shape) + array.tobytes()
    for name, content in (("a", good), ("b.gz", gzip.compress(good, mtime=0))):
        (folder / name).write_bytes(content)
        yield case_of(folder / name, lambda path=folder / name: xn.data.read_idx(path))


def cifar_cases(folder: Path) -> Iterator[Case]:
    from xpnet.data import cifar
    few = cifar.TEN._replace(images=2, tested=1)
    members = {name: (b"\3" + bytes(range(256)) * 12) * (1 if "test" in name else 2)
               for name in cifar.TEN.files}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(f"cifar-10/{name}")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    for name, content in (("cifar-10-binary.tar", made.getvalue()),
                          ("cifar-10-binary.tar.gz", gzip.compress(made.getvalue(), mtime=0))):
        own = folder / name.replace(".", "-")
        own.mkdir(exist_ok=True)
        (own / name).write_bytes(content)

        def read(own: Path = own) -> object:
            with mock.patch.object(cifar, "TEN", few):
                return xn.data.cifar10(own)

        yield case_of(own / name, read)


def image_cases(folder: Path) -> Iterator[Case]:
    from PIL import Image
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        own = folder / kind
        (own / "one").mkdir(parents=True, exist_ok=True)
        (own / "two").mkdir(exist_ok=True)
        for name in ("one/a", "two/b"):
            Image.fromarray(pixels).save(own / f"{name}.{kind.lower()}", kind)

        def read(own: Path = own) -> object:
            warnings.simplefilter("ignore")         # Pillow warns of damage that does no harm
            return xn.data.image_folder(own, 8, cache=False)

        yield case_of(own / f"one/a.{kind.lower()}", read)


CASES: dict[str, Callable[[Path], Iterator[Case]]] = {
    "onnx": onnx_cases, "cfg": cfg_cases, "weights": weights_cases, "torch": torch_cases,
    "torch-safetensors": torch_safetensors_cases, "keras": keras_cases,
    "safetensors": safetensors_cases, "idx": idx_cases, "cifar": cifar_cases,
    "images": image_cases}


def main() -> None:
    kind, count = sys.argv[1], int(sys.argv[2])
    rng = np.random.default_rng(int(sys.argv[3]) if sys.argv[3:] else 0)
    folder = Path(tempfile.mkdtemp())
    endings, faults = Counter[str](), Counter[str]()
    kept = folder / "faults"
    kept.mkdir()
    for content, ending, wrong in damaged([*CASES[kind](folder)], rng, count=count):
        endings[ending] += 1
        if wrong:
            place = re.sub(r"\d+", "#", wrong[:60]) + wrong[wrong.rfind("["):]
            if faults[place] == 0:
                (kept / str(len(faults))).write_bytes(content)
                print(kept / str(len(faults)), wrong, flush=True)
            faults[place] += 1
    print(kind, json.dumps(endings), flush=True)
    for place, number in faults.most_common():
        print(number, place)


if __name__ == "__main__":
    main()
