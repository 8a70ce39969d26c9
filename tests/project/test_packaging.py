"""The installed package: a wheel and an editable install, each used from an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tiers import first

ROOT = Path(__file__).parents[2]
WINDOWS = sys.platform == "win32"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
HEAVY = ["cupy", "numba", "llvmlite", "torch", "scipy", "sklearn", "matplotlib", "onnx", "mpi4py",
         "pooch", "tqdm", "safetensors", "threadpoolctl", "urllib.request"]


# The new environment contains the mandatory dependencies, as they are installed here, and nothing
# else.
DEPENDENCIES = [re.match(r"[\w-]+", line)[0] for line in PROJECT["project"]["dependencies"]]
FINDER = """
import sys
from importlib.machinery import PathFinder

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, {path}) if name in {names} else None

sys.meta_path.append(Finder)
"""


def run(*command: object, cwd: Path) -> str:
    """The output of `command`, run without PYTHONPATH. If it fails, the test fails with its whole
    output."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, text=True,
                          capture_output=True)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(kind: str, tree: Path, folder: Path) -> Path:
    """Build as pip's front end does (PEP 517, PEP 660), with the setuptools of this environment and
    without a network."""
    code = (f"from setuptools import build_meta; print('built:', "
            f"build_meta.build_{kind}({str(folder)!r}))")
    return folder / run(sys.executable, "-c", code, cwd=tree).rsplit("built: ", 1)[1].strip()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree to build in, because builds create folders, and the checkout may not be
    writable."""
    copy = tmp_path_factory.mktemp("tree") / "xpnet"
    ignore = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignore)
    return copy


@pytest.fixture(scope="module")
def unlinked(tree, tmp_path_factory):
    """A copy of the tree as git checks it out if links are not allowed: they are text files."""
    copy = tmp_path_factory.mktemp("unlinked") / "xpnet"
    shutil.copytree(tree, copy, symlinks=True)
    link = copy / "xpnet" / "backends"
    if link.is_symlink():
        link.unlink()
        link.write_text("../backends")
    return copy


@pytest.fixture(scope="module", params=first(["wheel", "sdist", "editable"], "wheel"))
def installed(request, tree, unlinked, tmp_path_factory):
    """(Python of a new environment with xpnet in it, its site-packages, the folder that xpnet must
    come from)."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    tree = unlinked if kind == "editable" else tree
    if kind == "sdist":
        archive = build("sdist", tree, folder)
        with tarfile.open(archive) as tar:
            filtered: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # 3.11.4
            tar.extractall(folder / "unpacked", **filtered)
        wheel = build("wheel", folder / "unpacked" / archive.name.removesuffix(".tar.gz"), folder)
    else:
        wheel = build(kind, tree, folder)

    venv.create(folder / "env", with_pip=False, symlinks=not WINDOWS)
    python = folder / "env" / ("Scripts/python.exe" if WINDOWS else "bin/python")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", python]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)

    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
                    cwd=folder).strip())
    (site / "dependencies_from_outside.pth").write_text("import dependencies_from_outside\n")
    (site / "dependencies_from_outside.py").write_text(
        FINDER.format(names=DEPENDENCIES, path=sys.path))
    return python, site, (tree if kind == "editable" else site).resolve()


def test_everything_is_importable_from_an_empty_folder(installed, tmp_path):
    python, site, home = installed
    code = ("import importlib, sys; [print(importlib.import_module(name).__file__) for name in "
            "sys.argv[1:]]")
    files = run(python, "-W", "error", "-c", code, *PACKAGES, cwd=tmp_path).splitlines()
    assert len(files) == len(PACKAGES) >= 5
    for file in files:
        assert Path(file).resolve().is_relative_to(home)

    # Files that are not Python are included: the kernels, the marker for type hints, and the page.
    backends = Path(files[PACKAGES.index("xpnet.backends")]).parent
    kernels = {path.name for path in (ROOT / "backends" / "cupy" / "kernels").glob("*.cu")}
    assert (kernels
            and {path.name for path in (backends / "cupy" / "kernels").glob("*.cu")} == kernels)
    assert (Path(files[0]).parent / "py.typed").is_file()
    assert (Path(files[PACKAGES.index("xpnet.explore")]).parent / "page.html").is_file()


def test_every_module_is_installed(installed, tmp_path):
    """A package that is missing in the list of pyproject.toml would work only in the tree."""
    python, *_ = installed
    files = [path.relative_to(ROOT) for path in (ROOT / "xpnet").rglob("*.py")]
    files += ["xpnet" / path.relative_to(ROOT) for path in (ROOT / "backends").rglob("*.py")]
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
    assert modules > set(PACKAGES)
    code = ("import importlib.util, sys; print([n for n in sys.argv[1:] if "
            "importlib.util.find_spec(n) is None])")
    assert run(python, "-c", code, *sorted(modules), cwd=tmp_path).strip() == "[]"


def test_no_top_level_package_is_called_backends(installed, tmp_path):
    python, site, _ = installed
    assert not list(site.glob("backends*"))
    code = ("import importlib.util; print([n for n in ('backends', 'tests') if "
            "importlib.util.find_spec(n)])")
    assert run(python, "-c", code, cwd=tmp_path).strip() == "[]"


def test_a_wheel_contains_the_sources_of_the_kernels(tree, tmp_path):
    kernels = {path.name for path in (ROOT / "backends" / "numba" / "kernels").glob("*.py")}
    with zipfile.ZipFile(build("wheel", tree, tmp_path)) as wheel:
        packed = [Path(name) for name in wheel.namelist()]
    assert "jit.py" in kernels
    assert kernels == {path.name for path in packed
                       if path.parent == Path("xpnet/backends/numba/kernels")}


def test_the_fast_backend_is_an_extra(installed, tmp_path):
    """Without the extra, the error of the backend says what to install."""
    python, *_ = installed
    code = """
from xpnet import BackendError, available, get_backend
try:
    get_backend("numba")
except BackendError as error:
    print(available(), get_backend().name, error.remedy)
"""
    assert run(python, "-W", "error", "-c", code,
               cwd=tmp_path).strip() == "['numpy'] numpy Install it: pip install 'xpnet[fast]'"


def test_a_network_runs_from_an_empty_folder(installed, tmp_path):
    python, *_ = installed
    code = """
import numpy as np, xpnet as xn
net = xn.Sequential([xn.Conv2d(2, 3), xn.ReLU(), xn.Flatten(), xn.Linear(3)],
                    input_shape=(1, 6, 6), backend="numpy")
print(net.predict(np.zeros((4, 1, 6, 6), np.float32)).shape)
"""
    assert run(python, "-W", "error", "-c", code, cwd=tmp_path).strip() == "(4, 3)"


def test_a_checkout_without_links_works_from_its_own_folder(installed, unlinked):
    """Tools that run in the tree find xpnet there, and xpnet.backends through the editable
    install."""
    python, *_ = installed
    code = "import xpnet.backends.numpy.backend as module; print(module.__file__)"
    if installed[2] == unlinked.resolve():
        found = Path(run(python, "-W", "error", "-c", code, cwd=unlinked).strip())
        assert found.resolve() == unlinked.resolve() / "backends" / "numpy" / "backend.py"


def test_the_command(installed, tmp_path):
    python, *_ = installed
    script = python.with_name("xpnet.exe" if WINDOWS else "xpnet")
    for command in ([script], [python, "-m", "xpnet"]):
        assert "train" in run(*command, "--help", cwd=tmp_path)


def test_importing_xpnet_is_light():
    code = f"import sys, xpnet; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(sys.executable, "-W", "error", "-c", code, cwd=ROOT).strip() == "[]"


def test_print_the_import_time():
    """Printed (pytest -s shows it) and not asserted: a time depends on the machine."""
    code = """
import numpy, sys, time
before, begin = set(sys.modules), time.perf_counter()
import xpnet
print(f"{1000 * (time.perf_counter() - begin):.1f} ms, {len(set(sys.modules) - before)} modules")
"""
    begin = time.perf_counter()
    report = run(sys.executable, "-c", code, cwd=ROOT)
    print(f"import xpnet: {report.strip()} on top of numpy; the process "
          f"{1000 * (time.perf_counter() - begin):.0f} ms")
    assert int(report.split()[2]) >= 1
