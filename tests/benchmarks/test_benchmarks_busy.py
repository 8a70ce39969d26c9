"""The benchmark of training beside busy loops."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks import busy


def test_the_table_has_a_row_for_each_setting(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(busy, "SETTINGS", {"one thread": {"XPNET_NUM_THREADS": "1"}})
    busy.main(
        ["--backend", "numpy", "--steps", "1", "--batch", "2", "--repeats", "1", "--loops", "0"]
    )
    head, *rows = filter(None, capsys.readouterr().out.splitlines())
    assert head.startswith("1 steps of numpy_cnn, batch 2, numpy, ") and rows[0].split() == [
        "0",
        "busy",
        "loops",
    ]
    least, middle, most = map(float, rows[1].removeprefix("one thread").split(" / "))
    assert 0 <= least <= middle <= most and len(rows) == 2


def test_a_process_hears_of_no_other_setting(monkeypatch: pytest.MonkeyPatch):
    """What the shell says about threads does not reach the measured process; the setting does."""
    seen: dict[str, str] = {}

    def run(
        command: list[str], env: dict[str, str], **options: object
    ) -> subprocess.CompletedProcess:
        seen.update(env)
        return subprocess.CompletedProcess(command, 0, "1.5\n")

    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    monkeypatch.setattr(busy.subprocess, "run", run)
    options = busy.argparse.Namespace(model="numpy_cnn", backend="numpy", batch=2, steps=1)
    assert busy.measured(options, {"XPNET_NUM_THREADS": "3"}) == 1.5
    assert "GOMP_SPINCOUNT" not in seen and seen["XPNET_NUM_THREADS"] == "3"


def test_busy_loops_end_with_the_measurement(monkeypatch: pytest.MonkeyPatch):
    started, start = [], subprocess.Popen
    monkeypatch.setattr(
        busy.subprocess, "Popen", lambda command: started.append(start(command)) or started[-1]
    )
    with pytest.raises(ZeroDivisionError), busy.busy(2):
        assert [loop.poll() for loop in started] == [None, None]
        raise ZeroDivisionError
    assert len(started) == 2 and None not in [loop.poll() for loop in started]
