"""The benchmarks of checkpoints and of batches of augmented images."""

from __future__ import annotations

import re

import pytest

from benchmarks import checkpoint, loader


def test_checkpoints(capsys: pytest.CaptureFixture[str], tmp_path):
    assert checkpoint.main(["--nets", "lenet5", "--saves", "2", "--folder", str(tmp_path)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    name, parameters, size, save = re.fullmatch(
        r"(\w+) +([\d,]+) +([\d.]+) +([\d.]+) s +[\d.]+ s +[\d.]+%( +[\d.]+ s){2}", line
    ).groups()[:4]
    assert name == "lenet5" and float(save) >= 0
    stored = 3 * 4 * int(parameters.replace(",", "")) / 1e6     # parameters and two slots
    assert stored - 0.05 < float(size) < 1.2 * stored + 0.1
    assert list(tmp_path.iterdir()) == []


def test_the_times_of_saves_are_those_after_the_first_two(tmp_path):
    _, size, times = checkpoint.saving("lenet5", 3, tmp_path)
    assert len(times) == 3 and all(wall > 0 and cpu > 0 for wall, cpu in times)
    assert len(list(tmp_path.glob("step-*"))) == 2
    assert size == max(file.stat().st_size for file in tmp_path.glob("step-*"))


def test_batches(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loader, "IMAGES", 40)
    arguments = ["--net", "numpy_cnn", "--backend", "numpy", "--batches", "4", "8", "--repeats",
                 "2"]
    assert loader.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()[3:]
    assert [line[:27].split(maxsplit=1) for line in lines] == [
        [size, name.ljust(20)] for size in ("4", "8") for name in loader.AUGMENT]
    for line in lines:
        loading, _, step, _ = map(float, re.findall(r"([\d.]+) ms", line))
        share = float(line.split()[-2].rstrip("%")) / 100
        assert abs(share - loading / step) <= 0.001 + 0.06 * (1 + share) / step     # rounded
