"""`xpnet explore`: its options, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from processes import ROOT
from tiers import full

import xpnet as xn
from xpnet.cli import main
from xpnet.explore import Explorer, explore


@pytest.fixture
def called(monkeypatch):
    """Calls of the command, which ends at once: {argument: value}."""
    calls = []
    monkeypatch.setattr("xpnet.cli.explore.explore", lambda net, data, **options: calls.append(
        {"net": net, "data": data} | options))
    return calls


@pytest.fixture
def digits(monkeypatch):
    """A few samples in place of the digits, which scikit-learn takes seconds to load."""
    data = xn.data.Dataset(np.zeros((50, 1, 8, 8), np.uint8), np.arange(50) % 10, name="digits")
    monkeypatch.setattr("xpnet.data.digits", lambda: data)


def test_a_name_is_made_for_the_data(called, digits):
    assert main(["explore", "bilici", "--data", "digits", "--backend", "numpy", "--seed", "5",
                 "--port", "8123", "--no-browser", "--compare", "numpy"]) == 0
    made, = called
    assert made["net"].ins.nodes[0].shape == (1, 8, 8) and made["net"].seed == 5
    assert made["net"].classes == tuple("0123456789") and len(made["data"]) == 40
    assert (made["port"], made["browser"], made["compare"], made["name"], made["seed"]) == (
        8123, False, "numpy", "bilici", 5)


def test_without_data_a_name_has_its_own_input(called):
    assert main(["explore", "lecun1989", "--backend", "numpy"]) == 0
    assert called[0]["data"] is None and called[0]["browser"]
    assert called[0]["net"].ins.nodes[0].shape == (1, 28, 28)


def test_a_saved_network_of_digits_has_them(called, digits, tmp_path):
    file = tmp_path / "net.safetensors"
    xn.models.bilici((1, 8, 8), backend="numpy").save(file)
    assert main(["explore", str(file), "--backend", "numpy"]) == 0
    assert called[0]["data"].name.startswith("digits")


def test_a_python_file_is_made_for_the_data(called, digits, tmp_path):
    file = tmp_path / "net.py"
    file.write_text("""
import xpnet as xn


def build(input_shape, classes):
    return xn.Sequential([xn.Flatten(), xn.Linear(classes)], input_shape=input_shape)
""")
    assert main(["explore", str(file), "--backend", "numpy"]) == 0
    assert called[0]["net"].outs.nodes[0].shape == (10,) and len(called[0]["data"]) == 40
    assert called[0]["net"].backend.name == "numpy"


@pytest.mark.parametrize("arguments, said", [
    (["nothing"], "expected a file, or one of"), (["bilici", "--compare", "no"], "neither"),
    (["bilici", "--port", "80"], "1024"), (["bilici", "--data", "none"], "none"),
    (["bilici", "--seed", "-1"], "seed")])
def test_errors_are_one_line(arguments, said, capsys):
    assert main(["explore", *arguments, "--backend", "numpy", "--no-browser"]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_the_error_names_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    with pytest.raises(ImportError, match=r'pip install "xpnet\[explore\]"'):
        explore(net, browser=False, wait=False)


def test_a_port_in_use(serve):
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    page = serve(net)
    with pytest.raises(OSError, match="expected a free port"):
        Explorer(net, port=page.client.base_url.port)


def test_the_call_returns_at_once_without_waiting(capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    explorer = explore(net, wait=False)
    try:
        assert capsys.readouterr().out.strip() == explorer.url == opened[0]
        assert "token=" not in repr(explorer)
    finally:
        explorer.close()
    assert not explorer.worker.is_alive()
    explorer.close()                        # a second time does nothing


@pytest.mark.parametrize("wrong", [{"wait": 1}, {"browser": None}])
def test_flags(wrong):
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    with pytest.raises(ValueError, match="expected"):
        explore(net, **{"browser": False, "wait": False} | wrong)


@full
@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("training", [False, True])
def test_ctrl_c_ends_it(training):
    """Within seconds, without a traceback, also while it trains: a step is never cut."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "xpnet", "explore", "bilici", "--data", "digits",
         "--backend", "numpy", "--no-browser"], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        assert process.stdout is not None
        base, _, token = process.stdout.readline().strip().partition("/?token=")
        if training:
            request = urllib.request.Request(f"{base}/api/train", data=b'{"action": "start"}',
                                             headers={"X-Token": token})
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert json.load(answer)["running"]
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (0, "")
        assert time.monotonic() - started < 20      # 0.1 to 1 s on a quiet machine
    finally:
        process.kill()
        process.wait()


@full
def test_a_stroke_and_all_maps_take_little_time(serve):
    """Of CPU time, on a busy machine: 100 ms are allowed."""
    net = xn.models.bilici(backend="numpy")
    page = serve(net)
    x = np.random.default_rng(0).random((1, 28, 28))
    times = []
    for _ in range(9):
        started = time.process_time()
        page.draw(x)
        for index in range(1, 10):
            page.array(f"/api/node/{index}")
        times.append(time.process_time() - started)
    assert np.median(times) < 0.1
