"""The workflows agree with the project: its versions of Python, files that exist, few rights."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

every_workflow = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)


def test_every_python_of_the_classifiers_is_tested():
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    matrix = re.search(r"python: \[(.*)\]", text)
    assert matrix
    tested = re.findall(r"[\d.]+", matrix[1])
    classifiers = re.findall(r":: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tested == classifiers and f">={tested[0]}" == PROJECT["requires-python"]


@every_workflow
def test_named_files_and_make_targets_exist(workflow):
    """A test that was moved would no longer run."""
    commands = re.findall(r"run: (.+)", workflow.read_text(encoding="utf-8"))
    assert commands
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in commands:
        for path in re.findall(r"\b(?:tests|docs|xpnet|benchmarks)/[\w/.]+", command):
            assert (ROOT / path).exists(), command
        for target in re.findall(r"^make ([\w-]+)", command):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), command


@every_workflow
def test_a_workflow_can_only_read(workflow):
    """The job that publishes the site is the exception: it may publish, but not read."""
    text = workflow.read_text(encoding="utf-8")
    whole, *jobs = re.findall(r"^( *)permissions:\n((?:\1  [\w-]+: \w+\n)+)", text, re.MULTILINE)
    assert whole == ("", "  contents: read\n")
    assert [permissions.split() for _, permissions in jobs] == (
        [["pages:", "write", "id-token:", "write"]] if workflow.name == "site.yml" else [])
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
