"""The options of the command `python -m benchmarks cpu | gpu | parallel`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

from benchmarks import parallel
from benchmarks.contenders import CONTENDERS, CPU_NETS, MODES, TF32
from benchmarks.gpu.rows import PARTS as GPU_PARTS
from benchmarks.gpu.steps import CELLS
from benchmarks.parts import PARTS
from xpnet.backends.cpu.threads import cores


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare xpnet with PyTorch: time and memory of a training step (forward, "
                    "cross entropy, backward, Adam) and of a prediction.")
    devices = parser.add_subparsers(dest="device", required=True, metavar="cpu | gpu | parallel")
    cpu = devices.add_parser("cpu", help="NumPy, Numba and PyTorch on the CPU: steps, single "
                                         "convolutions, recurrent layers, growth")
    gpu = devices.add_parser("gpu", help="CuPy and PyTorch on a GPU: steps, memory, bandwidth, "
                                         "products, time to an accuracy")
    parallel.add_options(devices.add_parser(
        "parallel", help="several processes that train one network on a CPU"))
    _list_option(cpu, "--parts", PARTS, list(PARTS))
    cpu.add_argument("--convolutions", action="store_const", const=["convolutions"], dest="parts",
                     help="the same as --parts convolutions")
    _list_option(cpu, "--modes", MODES, list(MODES))
    cpu.add_argument("--threads", nargs="+", action=_Names,
                     default=list(dict.fromkeys(map(_threads, ("1", "all")))), metavar="N",
                     convert=_threads,
                     help="numbers of threads, the same for every contender; all: one for each "
                          "core that this process may use (default: 1 all)")
    _options(cpu, "cpu", CPU_NETS, batches=[1, 8, 32, 100, 128], seconds=0.2, minutes=40)
    _list_option(gpu, "--parts", GPU_PARTS, ["steps", "bandwidth", "products", "mnist"])
    gpu.add_argument("--threads", type=_threads, default=cores(), metavar="N",
                     help="threads of every contender (default: all)")
    _options(gpu, "gpu", tuple(CELLS), batches=None, seconds=0.3, minutes=9)
    gpu.add_argument("--tf32", choices=TF32, default="convolutions",
                     help="operations of the steps that every contender rounds to TF32 (default: "
                          "convolutions, the default of PyTorch and xpnet)")
    gpu.add_argument("--data", metavar="FOLDER",
                     help="folder with MNIST and CIFAR-10, as the README of xpnet describes "
                          "(default: .data in this tree, else XPNET_HOME)")
    return parser


def _options(command: argparse.ArgumentParser, device: str, nets: Sequence[str], *,
             batches: list[int] | None, seconds: float, minutes: float) -> None:
    _list_option(command, "--nets", nets, list(nets))
    usual = " ".join(map(str, batches)) if batches else "a list for each network"
    command.add_argument("--batches", nargs="+", action=_Names, default=batches, metavar="N",
                         convert=positive, help=f"batch sizes of the networks (default: {usual})")
    _list_option(command, "--contenders", CONTENDERS[device], None)
    command.add_argument("--rounds", type=positive, default=3, metavar="N",
                         help="rounds, in each of which every contender is measured (default: 3)")
    command.add_argument("--seconds", type=_number, default=seconds,
                         help="how long to measure each figure in each round (default: "
                              f"{seconds:g})")
    command.add_argument("--minutes", type=_number, default=minutes,
                         help="do not begin a round that would probably end after this time "
                              f"(default: {minutes:g})")
    command.add_argument("--fused-adam", action="store_true",
                         help="use PyTorch's fused Adam, which is not its default")
    command.add_argument("--json", metavar="FILE", help="write the rows to this file" + (
                         " (default: a file in benchmarks/results, named after GPU and date)"
                         if device == "gpu" else ""))
    command.add_argument("--merge", action="store_true",
                         help="keep the rows of --json FILE that are not measured again; the "
                              "tables show all rows")
    command.add_argument("--tables-only", action="store_true",
                         help="measure nothing; make tables of the rows in --json FILE" + (
                              ", by default of those in benchmarks/results" if device == "gpu"
                              else ""))
    command.add_argument("--markdown", metavar="FILE",
                         help="replace the tables in this page, between the markers "
                              f"<!-- benchmarks {device}: begin --> and "
                              f"<!-- benchmarks {device}: end -->")


class _Names(argparse.Action):
    """A list of names separated by blanks or commas, without duplicates."""

    def __init__(self, convert: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.convert = convert

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        try:
            parts = [self.convert(part) for part in " ".join(values).replace(",", " ").split()]
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        if not parts:
            raise argparse.ArgumentError(self, "expected at least one. Received: none.")
        setattr(namespace, self.dest, list(dict.fromkeys(parts)))


def _list_option(command: argparse.ArgumentParser, flag: str, names: Sequence[str] | dict[str, Any],
                 default: list[str] | None) -> None:
    def one(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(names)}. Received: "
                                             f"{text!r}.")
        return text
    usual = ("all that can run here" if default is None else
             "all" if default == list(names) else " ".join(default))
    command.add_argument(flag, nargs="+", action=_Names, default=default, metavar="NAME",
                         convert=one, help=f"some of {', '.join(names)} (default: {usual})")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("expected a whole number, 1 or larger. Received: "
                                         f"{text!r}.")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number, 0 or larger. Received: {text!r}.")
    return value


def _threads(text: str) -> int:
    return cores() if text == "all" else positive(text)
