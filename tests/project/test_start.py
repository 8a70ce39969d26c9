"""The start pages: their commands do what the pages say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from pages import ROOT, blocks
from skips import NO_NUMBA
from tiers import full

from xpnet.cli import main

START = ROOT / "docs" / "start"


@full
@NO_NUMBA                       # with NumPy alone it takes minutes
def test_the_commands_for_a_folder_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]):
    page = START / "own_pictures.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xpnet.data.folder.cache_folder", lambda: tmp_path / "cache")
    _, code, _ = blocks(page)[0]
    exec(compile(code, str(page), "exec"), {})
    shell = re.search(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    assert shell
    out = {}
    for line in shell[1].splitlines():
        _, name, *arguments = shlex.split(line)
        assert main([name, *arguments]) in (0, None)
        out[name] = capsys.readouterr().out
    assert [*out] == ["train", "predict", "evaluate"]
    assert re.search(r"^new.jpg +poppy +0\.9|^new.jpg +poppy +1\.0", out["predict"])
    assert re.search(r"validation accuracy: (9.|100)\.", out["evaluate"])


def test_the_index_has_every_page():
    text = (START / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in START.glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\]\((\w+\.md)\)", text))
