"""What the host does in a step on a GPU, counted on the emulated one."""

import sys

import pytest

from benchmarks.gpu import host


def test_a_captured_step_is_two_launches(monkeypatch, capsys):
    """The optimizer's numbers, and the graph, which all 3 counted steps have in common."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    monkeypatch.setattr(sys, "argv", ["host", "--nets", "numpy_cnn", "--steps", "3"])
    host.main()
    eager, captured, prediction = ([cell.strip() for cell in line.split("|")[2:-1]]
                                   for line in capsys.readouterr().out.splitlines()[2:])
    assert captured[:4] == ["captured step", "1.0", "1.0", "0.0"] and int(captured[4]) > 0
    assert eager[0] == "eager step" and float(eager[1]) > 20 and eager[2] == "0.0"
    assert int(eager[4]) > int(captured[4])
    assert prediction[0] == "prediction" and 0 < float(prediction[2]) < 1
