"""CupyBackend where there is no GPU: errors that say why and what to do, `auto`, device numbers,
launch arithmetic."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy, check_limits, installed
from hypothesis import given
from hypothesis import strategies as st
from parity import different_signatures
from processes import ROOT

from xpnet.backends import BackendError, Window, available, get_backend
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.backend import CupyBackend, kernels
from xpnet.backends.cupy.batches import VALUES
from xpnet.backends.cupy.plans import PRODUCT
from xpnet.backends.cupy.recurrent import STEP

# what there is without a GPU, the best last
CPU = ["numpy", "numba"] if importlib.util.find_spec("numba") else ["numpy"]


@pytest.fixture
def two_gpus(folder: Path):
    """A fake CuPy with two GPUs."""
    with installed(FakeCupy(folder, 2)) as cupy:
        yield cupy


def fake(count: Any = 1, **attributes: Any) -> SimpleNamespace:
    """As much of a CuPy as is looked at before the first kernel; `count` is a number of GPUs, or an
    error."""
    class CUDARuntimeError(RuntimeError):
        pass

    def get_device_count() -> int:
        if isinstance(count, str):
            raise CUDARuntimeError(count)
        return count
    runtime = SimpleNamespace(getDeviceCount=get_device_count, CUDARuntimeError=CUDARuntimeError)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), **attributes)


# --- a GPU that cannot be used --------------------------------------------------------------------

UNUSABLE = {
    "no CuPy": (None, "CuPy is not installed", r'pip install "xpnet\[cuda13\]"'),
    "no driver": (fake("cudaErrorInsufficientDriver: too old"), "no usable NVIDIA driver "
                                                                ".cudaErrorInsufficientDriver",
                  "Install or update the driver"),
    "no GPU": (fake(0), "there is no GPU", "nvidia-smi"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_gpu_is_an_error_with_reason_and_remedy(case: str):
    cupy, reason, remedy = UNUSABLE[case]
    for name in ("cupy", "cupy:0", "cupy:1"):
        with installed(cupy), pytest.raises(BackendError, match=reason) as error:
            get_backend(name)
        assert re.search(remedy, str(error.value))


@pytest.mark.parametrize("case", UNUSABLE)
def test_auto_falls_back_to_the_cpu_and_says_why(case: str):
    cupy, reason, _ = UNUSABLE[case]
    with installed(cupy):
        backend = get_backend("auto")
        assert available() == CPU
    assert backend.name == CPU[-1] and backend.xp is np
    assert re.search(f"^no GPU: .*{reason}", backend.note)
    assert reason[:10] in repr(backend)


def test_cupy_is_installed_but_there_is_no_driver():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if cupy.cuda.is_available():
        pytest.skip("there is a GPU here; test_gpu_parity.py uses it")
    with pytest.raises(BackendError, match=r"no usable NVIDIA driver \(cudaError|there is no GPU"):
        get_backend("cupy")
    assert get_backend("auto").name == CPU[-1]
    assert available() == CPU


def test_a_network_trains_where_cupy_cannot_be_imported():
    """In a process of its own, with a CuPy that fails as one without its libraries does."""
    program = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "cupy":
            raise ImportError("libcudart.so.13: cannot open shared object file")
sys.meta_path.insert(0, Broken())
import numpy as np, xpnet as xn
net = xn.Sequential([xn.Flatten(), xn.Linear(2)], input_shape=(1, 2, 2))
net.fit(np.zeros((4, 1, 2, 2)), np.array([0, 1, 0, 1]), loss="cross_entropy",
        optimizer=xn.SGD(0.1), verbose=False)
print(net.backend.name, net.backend.note)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                            cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert (result.stdout.startswith(CPU[-1]) and "libcudart.so.13: cannot open shared object "
                                                  "file" in result.stdout)


def test_the_backend_is_not_imported_before_it_is_asked_for():
    program = ("import sys, xpnet; print('cupy' in sys.modules, 'xpnet.backends.cupy.backend' in "
               "sys.modules)")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                            check=True, cwd=ROOT)
    assert result.stdout.split() == ["False", "False"]


def test_a_gpu_that_cannot_run_a_kernel(two_gpus: FakeCupy, monkeypatch: pytest.MonkeyPatch):
    class BrokenModule:
        def __init__(self, **_: Any) -> None:
            raise two_gpus.cuda.compiler.CompileException("cannot open source file\n   "
                                                          "'cuda_fp16.h'")
    monkeypatch.setattr(two_gpus, "RawModule", BrokenModule)
    with pytest.raises(BackendError, match=r"cupy:1: .*cannot open source file 'cuda_fp16.h'.*pip "
                                           r"install"):
        get_backend("cupy:1")
    assert "cuda_fp16.h" in get_backend("auto").note


def test_a_gpu_whose_kernels_fail_when_they_run(two_gpus: FakeCupy,
                                                monkeypatch: pytest.MonkeyPatch):
    """The launch succeeds; CUDA reports the error to whoever waits for the GPU."""
    def synchronize(device: Any) -> None:
        raise two_gpus.cuda.runtime.CUDARuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC "
                                                     "error encountered")
    monkeypatch.setattr(two_gpus.cuda.Device, "synchronize", synchronize)
    with pytest.raises(BackendError, match="cupy:1: .*cudaErrorECCUncorrectable"):
        get_backend("cupy:1")


# --- devices --------------------------------------------------------------------------------------

def test_devices_are_found_by_number(two_gpus: FakeCupy):
    assert ([get_backend(name).name for name in ("cupy", "cupy:0", "cupy:1")]
            == ["cupy:0", "cupy:0", "cupy:1"])
    assert available() == [*CPU, "cupy:0", "cupy:1"]
    chosen = get_backend("auto")
    assert (chosen.name, chosen.note) == ("cupy:0", "")
    assert two_gpus.current == 0


def test_the_digits_of_products_can_be_chosen(two_gpus: FakeCupy):
    chosen: Any = [get_backend("cupy"), get_backend("cupy:1", tf32="never"),
                   get_backend("auto", tf32="always")]
    assert [backend.tf32 for backend in chosen] == ["convolutions", "never", "always"]
    for name in ("numpy", "cupy"):
        with pytest.raises(ValueError, match="get_backend: expected tf32 to be 'never', .* "
                                             "Received: tf32=.on.\\."):
            get_backend(name, tf32="on")
    with pytest.raises(ValueError, match="CupyBackend: expected tf32"):
        CupyBackend(tf32="on")


@pytest.mark.parametrize("device", [2, 17, -1])
def test_a_device_that_is_not_there(device: int, two_gpus: FakeCupy):
    with pytest.raises(BackendError, match=f"cupy:{device}: there is no such GPU. Use one of "
                                           "these: cupy:0, cupy:1"):
        CupyBackend(device)


def test_methods_run_on_their_own_device_whatever_the_current_one(two_gpus: FakeCupy):
    first, second = CupyBackend(0), CupyBackend(1)
    counter = second.asarray(np.zeros(2, np.uint64))
    assert counter.device.id == 1
    bits = second.random_bits(5, (1, 2), counter)
    assert bits.device.id == 1 and two_gpus.current == 0
    assert second.empty((2,), np.float32).device.id == 1
    np.testing.assert_array_equal(second.to_numpy(bits),
                                  first.to_numpy(
                                      first.random_bits(5, (1, 2), first.asarray(counter))))
    with second.scope():
        assert two_gpus.current == 1
    assert two_gpus.current == 0


def test_asarray_copies_from_another_device_and_only_then(two_gpus: FakeCupy):
    first, second = CupyBackend(0), CupyBackend(1)
    a = first.asarray(np.arange(3.0))
    assert first.asarray(a) is a
    moved = second.asarray(a)
    assert moved.device.id == 1 and a.device.id == 0
    np.testing.assert_array_equal(second.to_numpy(moved), np.arange(3.0))


def test_a_kernel_refuses_arguments_of_other_types(two_gpus: FakeCupy):
    """What would be garbage on a GPU: the shim compares each argument with the kernel's
    parameter."""
    backend = CupyBackend(0)
    with pytest.raises(TypeError, match="random_bits: expected the arguments Pu4 i8 u8 u8 Pu8 . "
                                        "Received: Pu4 i8 u8 u8 Pf8"):
        backend.random_bits(5, (1, 2), backend.asarray(np.zeros(2)))


def test_the_methods_have_the_parameters_and_defaults_of_the_contract():
    assert different_signatures(CupyBackend) == set()


# --- launch arithmetic ----------------------------------------------------------------------------

def test_vector_width():
    assert cuda_launch.widths(np.dtype(np.float16)) == (1, 2, 4, 8)
    assert cuda_launch.widths(np.dtype(np.float32)) == (1, 2, 4)
    assert cuda_launch.widths(np.dtype(np.float64)) == (1, 2)
    assert cuda_launch.vector_width(128, [(0, 4)]) == 4
    assert cuda_launch.vector_width(6, [(0, 4)]) == 2               # 4 does not divide 6
    # one array starts at an odd address
    assert cuda_launch.vector_width(128, [(512, 4), (8, 4)]) == 2
    # four bytes of argmax want a multiple of four
    assert cuda_launch.vector_width(128, [(0, 4), (2, 1)]) == 2
    # 32 bytes of argmax are two accesses of 16
    assert cuda_launch.vector_width(128, [(0, 2), (16, 4)]) == 8
    assert cuda_launch.vector_width(1, [(0, 8)]) == 1


@given(*[st.integers(0, 2**31 - 1)] * 4)
def test_launches_keep_to_the_limits_and_use_their_threads(channels: int, rows: int, columns: int,
                                                           vectors: int):
    grid, block = cuda_launch.row_launch(channels, rows, columns, vectors)
    check_limits(grid, block)
    assert block[0] * block[1] * block[2] <= cuda_launch.THREADS
    assert (block[0] < 2 * max(vectors, 1) and block[1] < 2 * max(columns, 1)
            and block[2] < 2 * max(rows, 1))
    assert grid[1] == max(1, min(-(-rows // block[2]), 65535))
    assert grid[2] == max(1, min(channels, 65535)) and grid[0] * block[1] < 2 * max(columns, 1)
    # MANY blocks, up to twice as many; fewer only if each has one group of columns
    turns, others = -(-columns // block[1]), -(-rows // block[2]) * channels
    assert grid[0] * others >= min(turns * others, cuda_launch.MANY)
    assert (grid[0] - 1) * others <= 2 * cuda_launch.MANY
    grid, block = cuda_launch.flat_launch(channels * rows)
    check_limits(grid, block)


@given(st.integers(1, 2**20), st.integers(1, 2**33), st.sampled_from((1, 2, 4, 8)))
def test_the_pieces_of_rows_cover_them_once(rows: int, vectors: int, width: int):
    size = vectors * width
    (grid, block), pieces = cuda_launch.row_pieces(rows, size, width)
    check_limits(grid, block)
    _, length, _, per_row = (int(n) for n in pieces.item())
    assert block[0] * block[1] <= cuda_launch.THREADS and block[0] & (block[0] - 1) == 0
    assert length % width == 0 and (per_row - 1) * length < size <= per_row * length
    # no more than were asked for
    assert grid[0] == per_row and per_row * rows <= cuda_launch.BLOCKS * block[1] + rows


@given(st.integers(1, 2**17), st.integers(1, 2**33), st.sampled_from((1, 2, 4, 8)))
def test_classes_are_shared_where_samples_are_few(classes: int, samples: int, widest: int):
    width, kept, (grid, block) = cuda_launch.softmax_launch(classes, samples * widest, widest)
    check_limits(grid, block)
    assert (width in (1, widest) and block[0] * block[1] <= cuda_launch.THREADS
            and block[1] & (block[1] - 1) == 0)
    assert block[1] <= classes and (samples * widest) % width == 0
    if kept:                                # all classes, and 64 bytes of each
        assert width == widest > 1 and kept * block[1] >= classes and block[0] >= 4
    if classes >= 1000 and samples * widest <= 128:
        assert block[1] >= 128 and grid[0] >= samples * widest / 2


def test_sizes_that_do_not_fit_into_the_struct_are_refused():
    with pytest.raises(OverflowError):
        cuda_launch.window_struct((1, 3, 3, 2**31), Window.make(3))


def test_the_struct_is_the_one_of_the_kernels():
    text = re.search(r"struct Window \{(.*?)\};", cuda_launch.source("im2col"), re.DOTALL)
    assert text is not None
    fields = [name.strip() for line in re.findall(r"int ([^;]*);", text[1])
              for name in line.split(",")]
    assert fields == list(cuda_launch.WINDOW.names or ())
    text = re.search(r"struct Pieces \{(.*?)\};", cuda_launch.source("activation"), re.DOTALL)
    assert text is not None
    assert re.sub(r"\s+", " ", text[1]).strip() == "i64 size, length; int rows, per_row;"
    assert (cuda_launch.PIECES.names == ("size", "length", "rows", "per_row")
            and cuda_launch.PIECES.itemsize == 24)
    text = re.search(r"struct Step \{(.*?)\};", cuda_launch.source("recurrent"), re.DOTALL)
    assert text is not None
    fields = [(name.strip(), kind) for kind, names in re.findall(r"(i64|int) ([^;]*);", text[1])
              for name in names.split(",")]
    kinds = {8: "i64", 4: "int"}
    assert fields == [(name, kinds[STEP[name].itemsize]) for name in STEP.names or ()]
    assert STEP.itemsize == 48
    values = cuda_launch.window_struct((3, 9, 8, 5), Window((3, 2), (2, 1), (1, 0, 2, 3), (1, 2)))
    assert values.item() == (9, 8, 4, 11, 5, 3, 2, 2, 1, 1, 2, 1, 2)


def test_a_struct_with_other_fields_is_another_struct():
    """What is remembered for a shape does not change."""
    window = Window((3, 2))
    first = cuda_launch.window_struct((3, 9, 8, 5), window)
    before = first.item()
    other = cuda_launch.window_struct((3, 9, 8, 5), window, top=-4, OH=1)
    assert cuda_launch.window_struct((3, 9, 8, 5), window).item() == before != other.item()
    assert (int(other["top"]), int(other["OH"])) == (-4, 1)
    with pytest.raises(ValueError, match="read-only"):
        other["top"] = 0


STRUCTS = {"Window": cuda_launch.WINDOW, "Pieces": cuda_launch.PIECES, "Product": PRODUCT,
           "Values": VALUES, "Step": STEP}


@pytest.mark.parametrize("name", STRUCTS)
def test_cupy_passes_structs_as_their_bytes(name: str):
    """CuPy's own class for scalar arguments, which needs no GPU."""
    scalar = pytest.importorskip("cupy._core._scalar", reason="CuPy is not installed")
    dtype = STRUCTS[name]
    a = np.zeros((), dtype)
    for k, field in enumerate(dtype.names or (), 1):
        a[field] = 1000 * k + np.arange(a[field].size).reshape(a[field].shape)
    argument = scalar.CScalar(a[()])
    content = np.frombuffer(ctypes.string_at(argument.ptr, dtype.itemsize), dtype)
    np.testing.assert_equal(content[0].item(), a.item())
    assert argument.ptr % 8 == 0


def test_the_list_of_kernels_is_what_the_sources_define():
    def defined(text: str) -> set[str]:
        return set(re.findall(r"__global__ void (?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(", text))

    for family, names in kernels().items():
        own = defined((cuda_launch.FOLDER / f"{family}.cu").read_text(encoding="utf-8"))
        assert {name.partition("<")[0] for name in names} == own
        # A family may need the file of another one, but no kernel twice.
        of_others = set().union(*(defined((cuda_launch.FOLDER / f"{needed}.cu").read_text("utf-8"))
                                  for needed in cuda_launch.NEEDED.get(family, ())), set())
        assert defined(cuda_launch.source(family)) == own | of_others and not own & of_others
        assert len(set(names)) == len(names)
