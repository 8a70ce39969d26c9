"""The first steps of a new user: the README's first program after its first install line, and
make."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from processes import run_script

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Packages that the install line does not install cannot be imported, even if they are installed
# here.
REFUSE = """
import sys

class Refuse:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Refuse)
"""


def installed_by(extras: set[str]) -> set[str]:
    """The packages that `pip install .[extras]` installs, with their dependencies."""
    found: set[str] = set()
    lines = [*PROJECT["dependencies"], *(line for extra in extras
                                         for line in PROJECT["optional-dependencies"][extra])]
    waiting = [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        chosen = [extra for extra in ("", *requirement.extras)
                  if requirement.marker is None or requirement.marker.evaluate({"extra": extra})]
        if name in found or not chosen:
            continue
        found.add(name)
        try:
            more = requires(requirement.name) or []
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
        for line in map(Requirement, more):
            if line.marker is None or any(line.marker.evaluate({"extra": extra})
                                          for extra in ("", *requirement.extras)):
                line.marker = None
                waiting.append(line)
    return found


def first_install_line() -> set[str]:
    """Its extras."""
    found = re.search(r'^pip install "?\.(?:\[([\w,]+)\])?"?', README, re.MULTILINE)
    assert found
    return set(filter(None, (found[1] or "").split(",")))


def test_the_first_program_needs_only_the_first_install_line():
    program = re.search(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert program
    brought = installed_by(first_install_line()) | {"xpnet"}
    names = {name for name, packages in packages_distributions().items()
             if not brought & {canonicalize_name(package) for package in packages}}
    assert {"pytest", "matplotlib", "onnx"} & names and not {"numpy", "xpnet"} & names
    run_script(REFUSE.format(names=names) + program[1])


def test_a_missing_package_is_detected():
    """The test above can fail: without the extra `data` there are no digits."""
    names = {"sklearn"}
    run_script(REFUSE.format(names=names) + """
from xpnet.data import digits
try:
    digits()
except ImportError as error:
    assert "xpnet[data]" in str(error)
else:
    raise AssertionError
""")


def test_make_shows_the_output_of_pip():
    """Because an installation takes minutes on a slow network."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = [line for line in makefile.splitlines() if "pip install" in line]
    assert installs and not [line for line in installs if "-q" in line.split() or "--quiet" in line]
    assert re.search(r"^train: \$\(VENV\)/installed-data$", makefile, re.MULTILINE)
    assert "data" in PROJECT["optional-dependencies"]
