"""NVRTC, the compiler that CuPy calls on a GPU, accepts every kernel. No driver is needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiers import first

from benchmarks.gpu.sass import resources
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy import plans
from xpnet.backends.cupy.backend import kernels

ARCHITECTURES = first(["sm_80", "sm_90", "sm_120"], "sm_90")
IN_FIRST_TIER = "im2col", "product", "warpgroups"     # g++ compiles the others in that tier


@pytest.fixture(scope="module")
def nvrtc() -> Any:
    """CuPy's binding, or a skip that says what is missing."""
    binding = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="CuPy is not installed",
                                  exc_type=ImportError)
    try:
        binding.getVersion()
    except RuntimeError as error:       # the binding is there, the library that it loads is not
        pytest.skip(f"NVRTC is not installed (pip install nvidia-cuda-nvrtc): {error}")
    return binding


@pytest.fixture(scope="module")
def headers() -> Path:
    """The folder of cuda_fp16.h."""
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="cuda-pathfinder, a part of CuPy, "
                                                               "is not installed")
    folder = pathfinder.find_nvidia_header_directory("cudart")
    if folder is None:
        pytest.skip("the CUDA headers are not installed (pip install nvidia-cuda-runtime)")
    return Path(folder)


@dataclass
class Compiled:
    code: bytes                     # machine code
    ptx: str
    mangled: dict[str, str]         # by name
    log: str


@cache
def compile_family(nvrtc: Any, headers: Path, family: str, arch: str,
                   everything: bool = True) -> Compiled:
    """What CuPy does for a RawModule, with its options."""
    names = names_for(family, arch, everything)
    program = nvrtc.createProgram(cuda_launch.source(family), f"{family}.cu", (), ())
    try:
        for name in names:
            nvrtc.addNameExpression(program, name)
        options = (*cuda_launch.options(family), f"-I{headers}", "-ftz=true", f"-arch={arch}",
                   "--device-as-default-execution-space")
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError:
            pytest.fail(nvrtc.getProgramLog(program))
        return Compiled(nvrtc.getCUBIN(program), as_bytes(nvrtc.getPTX(program)).decode(),
                        {name: nvrtc.getLoweredName(program, name) for name in names},
                        nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


def names_for(family: str, arch: str, everything: bool) -> tuple[str, ...]:
    """The kernels that are compiled for an architecture.

    Products take as long to compile as all other families. The first tier compiles every fourth
    one, and g++ all of them, for the tests on the CPU. The other families are the same code on
    every architecture: all forms are compiled for sm_90, the widest of each kernel for the others.
    """
    names = tuple(kernels()[family])
    if family == "product":
        return names if everything else names[::4]
    if arch == "sm_90":
        return names
    widest: dict[str, tuple[int, str]] = {}     # by the name without its width
    for name in names:
        width = re.search(r", (\d+)(?=[,>])", name)
        key, number = (name.replace(width[0], "", 1), int(width[1])) if width else (name, 0)
        widest[key] = max(widest.get(key, (0, name)), (number, name))
    return tuple(name for _, name in widest.values())


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("family", first(kernels(), *IN_FIRST_TIER))
def test_every_instantiation_compiles_without_a_warning(family: str, arch: str, everything: bool,
                                                        nvrtc: Any, headers: Path):
    if arch == "sm_120" and nvrtc.getVersion() < (12, 8):
        pytest.skip(f"NVRTC {nvrtc.getVersion()} is older than sm_120")
    if not cuda_launch.ARCHITECTURES.get(family, arch).startswith(arch):
        return                          # never compiled for this one
    compiled = compile_family(nvrtc, headers, family, arch, everything)
    assert compiled.log.strip("\0\n ") == ""
    assert compiled.code.startswith(b"\x7fELF")
    for name, symbol in compiled.mangled.items():
        assert symbol.encode() in compiled.code, f"{name} is not in the machine code"


# and store a few numbers
ONLY_SUM = re.compile(r"batch_norm_(moments|sums)<|activation_backward<.*NONE>|depthwise_dW<")


@pytest.mark.parametrize("family", first(["im2col", "max_pool", "avg_pool", "depthwise",
                                          "activation", "normalization", "softmax", "dropout",
                                          "optimizers"], "im2col"))
def test_the_widest_instantiations_move_16_bytes_at_once(family: str, nvrtc: Any, headers: Path):
    """The struct Vec is one load or store only if the compiler sees it so; PTX shows whether it
    did."""
    compiled = compile_family(nvrtc, headers, family, "sm_90")
    mangled = compiled.mangled
    bodies = dict(re.findall(r"\.entry (\w+)\((.*?)\n}", compiled.ptx, flags=re.DOTALL))
    wide = re.compile(r"(ld|st)\.global\S*\.(?:v4\.\w32|v2\.\w64)")
    for dtype, name in cuda_launch.TYPES.items():
        widest = cuda_launch.widths(dtype)[-1]
        for kernel in [k for k in mangled if f"<{name}," in k and re.search(f", {widest}[,>]", k)]:
            moves = set(wide.findall(bodies[mangled[kernel]]))
            wanted = {"ld"} if ONLY_SUM.match(kernel) else {"ld", "st"}
            assert moves == wanted, f"{kernel}: only {moves} of 16 bytes"


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_products_keep_their_sums_in_registers(arch: str, everything: bool, nvrtc: Any,
                                               headers: Path):
    """And use no more registers than the plans assume for the blocks that run at once."""
    if arch == "sm_120" and nvrtc.getVersion() < (12, 8):
        pytest.skip(f"NVRTC {nvrtc.getVersion()} is older than sm_120")
    compiled = compile_family(nvrtc, headers, "product", arch, everything)
    found, products = resources(compiled.code), 0
    every = [(math, tile) for math in plans.MATHS for tile in math.tiles]
    for math, tile in every:
        large = tile[0] * tile[1] >= 128 * 128
        for reading in plans.READINGS:
            plan = plans.Plan(*tile, 1, 1)
            name = plans.kernel_name(math, plan, *reading)
            if name in compiled.mangled:
                registers, local = found[compiled.mangled[name]]
                blocks = plans.BLOCKS_OF_128[math.units, large] * 128 // plans.threads(math, plan)
                # Registers are given to threads in groups of 8.
                assert -(-registers // 8) * 8 * plans.threads(math, plan) * blocks <= 65536, name
                # Without the matrix units, a few addresses outside of the main loop.
                assert local <= (0 if math.units else 64), f"{name}: {local} bytes"
                products += 1
    assert products > len(plans.kernel_names()) // 5


def test_warpgroups_compute_without_waiting_for_registers(nvrtc: Any, headers: Path):
    """The compiler would serialise their instructions, with a note, if a thread had too few
    registers. Sums in local memory would do the same."""
    compiled = compile_family(nvrtc, headers, "warpgroups", "sm_90")
    assert compiled.log.strip("\0\n ") == ""
    assert ".target sm_90a" in compiled.ptx
    assert compiled.ptx.count("wgmma.mma_async.sync.aligned.m64n128k8") >= 8
    for name, (_, local) in resources(compiled.code).items():
        assert local <= 32, f"{name}: {local} bytes"       # two addresses, after the main loop


def test_a_wrong_kernel_does_not_compile(nvrtc: Any, headers: Path,
                                         monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda_launch, "source", lambda family: "#include <cuda_fp16.h>\ntemplate "
                                                              "<typename T, int V> "
                                                              "__global__ void im2col(T* x) { y = "
                                                              "0; }")
    with pytest.raises(pytest.fail.Exception, match='identifier "y" is undefined'):
        compile_family.__wrapped__(nvrtc, headers, "im2col", "sm_80")
