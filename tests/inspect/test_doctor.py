"""The command `xpnet doctor`: every line says what was found, and what to do if something is
missing."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest

import xpnet as xn
from xpnet.backends.cpu import threads
from xpnet.backends.cupy import backend as cupy_backend
from xpnet.cli import main
from xpnet.inspect import doctor, speed


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(speed, "PRODUCT", 32)
    monkeypatch.setattr(speed, "COPY", 1 << 12)
    monkeypatch.setattr(doctor, "SECONDS", 0.01)


def by_topic(**options: bool) -> dict[str, doctor.Finding]:
    return {finding.topic: finding for finding in doctor.findings(**options)}


def test_every_line_says_something_and_the_speeds_are_numbers(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(set(line) == {"topic", "found", "remedy"} and line["found"] for line in found)
    topics = [line["topic"] for line in found]
    assert {"xpnet", "processor", "threads", "BLAS", "numpy", "numba", "cupy", "cache",
            "speed"} <= set(topics)
    speeds = [line["found"] for line in found if line["topic"] == "speed"]
    assert speeds[0].startswith("numpy: ") and "GFLOP/s with one thread" in speeds[0]
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.startswith(f"xpnet         {xn.__version__}, Python 3.")


def test_nothing_changes(monkeypatch):
    before = threads._chosen, xn.get_num_threads()
    xn.set_num_threads(1)
    try:
        assert list(doctor.findings()) and xn.get_num_threads() == 1
    finally:
        xn.set_num_threads(before[0])


def test_threads_of_a_container(monkeypatch):
    monkeypatch.setenv("XPNET_NUM_THREADS", "16")
    monkeypatch.setattr(doctor, "_quota", lambda: 2.0)
    finding = by_topic(measure=False)["threads"]
    assert finding.found == "16 (XPNET_NUM_THREADS=16)"
    assert finding.remedy.endswith("set XPNET_NUM_THREADS=2")
    monkeypatch.setenv("XPNET_NUM_THREADS", "2")
    assert by_topic(measure=False)["threads"].remedy == ""


def test_pinned_kernels_of_blas(monkeypatch):
    import threadpoolctl
    library = {"user_api": "blas", "internal_api": "openblas", "version": "0.3.30",
               "architecture": "Haswell"}
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: [library])
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert by_topic(measure=False)["BLAS"] == doctor.Finding("BLAS", "openblas, 0.3.30, Haswell")
    monkeypatch.setitem(os.environ, "OPENBLAS_CORETYPE", "Haswell")
    assert "OPENBLAS_CORETYPE=Haswell fixes" in by_topic(measure=False)["BLAS"].remedy
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: [])
    assert "not recognised" in by_topic(measure=False)["BLAS"].found


@pytest.mark.parametrize("version, remedy", [("14.1.0", True), ("14.2.0", False), ("15.0", False)])
def test_an_old_cupy(version, remedy, monkeypatch):
    runtime = SimpleNamespace(
        runtimeGetVersion=lambda: 13020, driverGetVersion=lambda: 13010, getDeviceCount=lambda: 1,
        getDeviceProperties=lambda number: {"name": b"NVIDIA Test", "major": 9, "minor": 0,
                                            "totalGlobalMem": 80 << 30})
    cupy = SimpleNamespace(__version__=version, cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(cupy_backend, "import_cupy", lambda: cupy)
    found = list(doctor._gpu())
    assert found[-3].found == f"{version}, CUDA 13.2" and bool(found[-3].remedy) == remedy
    assert found[-2].found == "supports CUDA up to 13.1"
    assert str(found[-1]) == "cupy:0        NVIDIA Test, compute capability 9.0, 80.0 GiB"


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert str(doctor._package("sklearn", "data")) == (
        "scikit-learn  not installed\n              -> only if you need it: "
        'pip install "xpnet[data]"')


def test_a_cache_that_cannot_be_used(monkeypatch, tmp_path):
    (tmp_path / "xpnet").write_text("a file")
    monkeypatch.setattr(doctor, "cache_folder", lambda: tmp_path / "xpnet")
    finding = by_topic(measure=False)["cache"]
    assert finding.found.startswith("cannot be used") and "XDG_CACHE_HOME" in finding.remedy
