"""What this machine offers to xpnet, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backends import Backend, BackendError, get_backend
from xpnet.backends.cpu.threads import get_num_threads, thread_count, using_threads
from xpnet.backends.user_cache import PrivateFolder, cache_folder
from xpnet.inspect.speed import copy_speed, product_speed

# {package: the extra of xpnet that installs it}
EXTRAS = {"sklearn": "data", "PIL": "data", "matplotlib": "viz", "onnx": "onnx",
          "starlette": "explore", "uvicorn": "explore"}
NAMES = {"sklearn": "scikit-learn", "PIL": "pillow"}    # distributions that are named otherwise
SECONDS = 2.0           # of all measurements together
GAIN = 1.3              # with several threads: below, other processes probably use the cores
WIDEST = ("avx512f", "avx2", "avx", "asimd", "sse4_2")      # instruction sets, the best first


@dataclass(frozen=True)
class Finding:
    """One line: what it is about, what was found, and, if something should be done, what."""

    topic: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.topic:12}  {self.found}" + (f"\n{'':12}  -> {self.remedy}"
                                                   if self.remedy else "")


def findings(*, measure: bool = True) -> Iterator[Finding]:
    """Everything, one after another; with `measure`, two seconds of measurements at the end."""
    from xpnet import __version__
    yield Finding("xpnet", f"{__version__}, Python {platform.python_version()}, NumPy "
                           f"{np.__version__}, {platform.platform()}")
    yield _processor()
    yield from _threads()
    yield from _blas()
    usable: list[Backend] = []
    for name in ("numpy", "numba", "cupy"):
        yield _backend(name, usable)
    yield from _gpu()
    for package, extra in EXTRAS.items():
        yield _package(package, extra)
    yield from _caches()
    if measure:
        yield from _speeds(usable)


def _processor() -> Finding:
    text = ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
    fields = {key.strip(): value.strip() for line in text.splitlines()
              for key, _, value in [line.partition(":")]}
    model = fields.get("model name") or platform.processor() or platform.machine()
    flags = fields.get("flags", fields.get("Features", "")).split()
    widest = next((name for name in WIDEST if name in flags), "not reported")
    return Finding("processor", f"{model}, {os.cpu_count()} cores, widest vector instructions: "
                                f"{widest}")


def _threads() -> Iterator[Finding]:
    count, cores = thread_count(), os.cpu_count() or 1
    chosen = os.environ.get("XPNET_NUM_THREADS")
    why = (f"XPNET_NUM_THREADS={chosen}" if chosen else "all cores that this process may use"
           if count < cores else "all cores")
    quota = _quota()
    remedy = ""
    if quota is not None and count > quota + 0.5:
        remedy = (f"this container may use {quota:g} cores at a time; set "
                  f"XPNET_NUM_THREADS={max(1, round(quota))}")
    yield Finding("threads", f"{count} ({why})", remedy)


def _quota() -> float | None:
    """How many cores the control group of this process may use at a time; None without a limit."""
    with suppress(OSError, ValueError):
        most, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if most == "max" else int(most) / int(period)
    return None


def _blas() -> Iterator[Finding]:
    from threadpoolctl import threadpool_info
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    for library in libraries:
        found = ", ".join(str(library[key]) for key in ("internal_api", "version", "architecture")
                          if library.get(key))
        pinned = os.environ.get("OPENBLAS_CORETYPE")
        yield Finding("BLAS", found, "" if not pinned or library["internal_api"] != "openblas" else
                      f"OPENBLAS_CORETYPE={pinned} fixes the kernels; without it OpenBLAS chooses "
                      "the fastest ones for this processor")
    if not libraries:
        yield Finding("BLAS", "not recognised by threadpoolctl",
                      "products with NumPy may be slow; pip install numpy brings OpenBLAS")


def _backend(name: str, usable: list[Backend]) -> Finding:
    try:
        usable.append(get_backend(name))
    except BackendError as error:
        return Finding(name, error.reason.partition(": ")[2] or error.reason, error.remedy)
    return Finding(name, "can be used" + (f", version {version(name)}" if name == "numba" else ""))


def _gpu() -> Iterator[Finding]:
    """Driver, CUDA and CuPy, as far as they are there."""
    driver = Path("/proc/driver/nvidia/version")
    with suppress(OSError):
        yield Finding("driver", driver.read_text().splitlines()[0].removeprefix("NVRM version: "))
    cupy = _cupy()
    if cupy is None:
        return
    runtime = cupy.cuda.runtime
    yield Finding("CuPy", f"{cupy.__version__}, CUDA {_cuda(runtime.runtimeGetVersion())}",
                  "" if _number(cupy.__version__) >= (14, 2) else
                  'xpnet needs CuPy 14.2 or newer: pip install --upgrade "xpnet[cuda13]"')
    with suppress(Exception):           # without a driver; the line of the backend says so
        if runtime.driverGetVersion():
            yield Finding("driver", f"supports CUDA up to {_cuda(runtime.driverGetVersion())}")
        for number in range(runtime.getDeviceCount()):
            about = runtime.getDeviceProperties(number)
            yield Finding(f"cupy:{number}",
                          f"{about['name'].decode()}, compute capability {about['major']}."
                          f"{about['minor']}, {about['totalGlobalMem'] / 2**30:.1f} GiB")


def _cupy() -> Any:
    """The module that the CuPy backend uses; None if it cannot be imported."""
    from xpnet.backends.cupy import backend
    try:
        return backend.import_cupy()
    except BackendError:
        return None


def _cuda(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _package(package: str, extra: str) -> Finding:
    name = NAMES.get(package, package)
    if importlib.util.find_spec(package) is None:
        return Finding(name, "not installed", f'only if you need it: pip install "xpnet[{extra}]"')
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "installed, version unknown")


def _caches() -> Iterator[Finding]:
    try:
        folder = cache_folder()
        PrivateFolder(folder).check()
    except OSError as error:
        yield Finding("cache", f"cannot be used ({error})",
                      "compiled kernels are not kept, so every process compiles them again; set "
                      "XDG_CACHE_HOME to a folder of yours")
        return
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    yield Finding("cache", f"{folder}, {size / 1e6:.1f} MB")


def _speeds(usable: list[Backend]) -> Iterator[Finding]:
    """A product with one thread and with all, and a copy, on each backend that can be used."""
    part = SECONDS / max(1, 3 * len(usable))
    for backend in usable:
        if backend.xp is not np:
            yield Finding("speed", f"{backend.name}: "
                                   f"{product_speed(backend, 'float32', part) / 1e9:.0f} GFLOP/s, "
                                   f"copy {copy_speed(backend, part) / 1e9:.0f} GB/s")
            continue
        count = get_num_threads()
        one, every = (_with_threads(n, backend, part) for n in (1, count))
        yield Finding("speed", f"{backend.name}: {one / 1e9:.0f} GFLOP/s with one thread, "
                               f"{every / 1e9:.0f} with {count}, copy "
                               f"{copy_speed(backend, part) / 1e9:.1f} GB/s",
                      "" if count == 1 or every > GAIN * one else
                      "more threads hardly help now: other processes use the cores, or the cores "
                      "are hyper-threads; XPNET_NUM_THREADS=1 may be faster")


def _with_threads(count: int, backend: Backend, seconds: float) -> float:
    with using_threads(count):
        return product_speed(backend, "float32", seconds)
