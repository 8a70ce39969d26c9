"""The command: python -m benchmarks cpu | gpu."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import table, worker
from benchmarks.contenders import CONTENDERS, INPUT_SHAPES, MODES, Job
from benchmarks.race import ContenderError, Race, Row, ask
from xpnet.backends.threads import thread_count
from xpnet.io.files import write_atomically

BUSY = 0.5      # a load average that something else must have caused


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the competition, print and write its results; returns the exit status."""
    try:
        options = _parser().parse_args(arguments)
        _check_files(options)
        _run(options)
    except (ValueError, OSError, ContenderError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    job = Job(options.device, "", options.threads, modes=tuple(options.modes), seconds=options.seconds,
              tf32=options.tf32, fused_adam=options.fused_adam)
    date, load = datetime.now(UTC).isoformat(timespec="seconds"), _load()
    contenders, left_out = _present(options, job)
    race = Race(contenders, options.nets, options.batches, options.rounds, job)
    rows = race.run(_say)
    steps, tables = rows, []
    if options.device == "gpu":
        if "cupy" in contenders:
            moved = ask("bandwidth", replace(job, contender="cupy"), _say)
            tables.append(table.bandwidth_table(moved))
            rows = steps + moved
        rows = [row | _provenance(race, date) for row in rows]
    facts = _facts(options, race, date, load, left_out)

    in_both = f"Milliseconds; in brackets {table.RATIO}"
    print("\n".join([*facts, in_both]), *(table.as_text(t) for t in [table.step_table(steps), *tables]), sep="\n\n")
    if options.json:
        write_atomically(options.json, (json.dumps(rows, indent=1) + "\n").encode())
    if options.markdown:
        named = options.device == "gpu"         # a GPU has a name that others know; of a CPU only ratios travel
        facts.append(in_both if named else f"The figure is {table.RATIO}")
        content = "\n\n".join(["\n".join(f"- {fact}" for fact in facts),
                               *(table.as_markdown(t) for t in [table.step_table(steps, times=named), *tables])])
        document = Path(options.markdown).read_text(encoding="utf-8")
        write_atomically(options.markdown, table.between_markers(document, options.device, content, options.markdown).encode())


def _present(options: argparse.Namespace, job: Job) -> tuple[list[str], dict[str, str]]:
    """The contenders that can run here, and why the others cannot; an error where one was asked for by name."""
    present, left_out = [], {}
    for contender in options.contenders or CONTENDERS[options.device]:
        reason = ask("missing", replace(job, contender=contender), _say)
        if reason is None:
            present.append(contender)
        elif options.contenders:
            raise ValueError(f"--contenders: expected contenders that can run here. Received: {contender}: {reason}")
        else:
            left_out[contender] = reason
    reasons = "\n".join(f"  {name}: {reason}" for name, reason in left_out.items())
    if not present:
        raise ValueError(f"{options.device}: expected at least one contender that can run here. Received: none.\n{reasons}")
    if left_out:
        _say(f"left out:\n{reasons}")
    return present, left_out


# --- what the figures were measured on ------------------------------------------------------------------------------

def _facts(options: argparse.Namespace, race: Race, date: str, load: str, left_out: dict[str, str]) -> list[str]:
    """Who ran, on what, and how: a sentence each."""
    versions, devices = _versions(race), _devices(race)
    pinned = os.environ.get("OPENBLAS_CORETYPE")
    unset = f"OPENBLAS_CORETYPE unset{f' (the environment had {pinned})' if pinned else ''}"
    facts = [f"Measured {date} on {cpu_model()}, threads of every contender: {options.threads}, {unset}, {load}."]
    if options.device == "gpu":
        facts.append(f"GPU: {', '.join(devices)}; TF32 {'on' if options.tf32 else 'off'} for every contender.")
    facts += [
        ", ".join(f"{name} {version}" for name, version in versions.items())
        + f"; PyTorch's Adam {'fused' if options.fused_adam else 'in its default form'}.",
        *(f"{contender}: {about['kernels']}." for contender, about in race.about.items()),
        f"The median over processes that take turns, rounds: {options.rounds}; each the median of steps for "
        f"{options.seconds:g} s, at least {worker.FEWEST}, after {worker.WARM_UP} that are not counted.",
    ]
    return facts + [f"Left out: {contender}: {reason}" for contender, reason in left_out.items()]


def _versions(race: Race) -> dict[str, str]:
    return {name: version for about in race.about.values() for name, version in about["versions"].items()}


def _devices(race: Race) -> list[str]:
    return sorted({about["device"] for about in race.about.values() if "device" in about})


def _provenance(race: Race, date: str) -> Row:
    return {"device": ", ".join(_devices(race)), "date": date, "versions": _versions(race), "tf32": race.job.tf32}


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "an unknown processor"


def _load() -> str:
    """How busy the machine was before; figures from a busy one are worth little."""
    if not hasattr(os, "getloadavg"):
        return "load average unknown"
    load = f"load average before {os.getloadavg()[0]:.2f}"
    if os.getloadavg()[0] > BUSY:
        _say(f"the machine is busy ({load}): threads that wait for each other lose most, so the ratios will be off too")
    return load


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- options ----------------------------------------------------------------------------------------------------------

def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="xpnet against PyTorch: a training step "
                                     "(forward, cross entropy, backward, Adam) and a prediction, and their ratios.")
    devices = parser.add_subparsers(dest="device", required=True, metavar="cpu | gpu")
    cpu = devices.add_parser("cpu", help="NumPy and PyTorch on the CPU")
    gpu = devices.add_parser("gpu", help="CuPy and PyTorch on a GPU, and the bandwidth of xpnet's kernels")
    cpu.set_defaults(tf32=False)
    for device, command in (("cpu", cpu), ("gpu", gpu)):
        _list_option(command, "--nets", INPUT_SHAPES, list(INPUT_SHAPES))
        command.add_argument("--batches", nargs="+", action=_Names, default=[32, 128], metavar="N", convert=_positive,
                             help="batch sizes (default: 32 128)")
        _list_option(command, "--modes", MODES, list(MODES))
        _list_option(command, "--contenders", CONTENDERS[device], None)
        command.add_argument("--rounds", type=_positive, default=5, metavar="N", help="turns of each contender (default: 5)")
        command.add_argument("--seconds", type=_seconds, default=1.0, help="time that each process measures for, in each "
                             "mode (default: 1)")
        command.add_argument("--threads", type=_positive, default=thread_count(), metavar="N",
                             help="threads of every contender (default: XPNET_NUM_THREADS, else one for each core)")
        command.add_argument("--fused-adam", action="store_true", help="PyTorch's fused Adam, which is not its default")
        command.add_argument("--json", metavar="FILE", help="write the rows there")
        command.add_argument("--markdown", metavar="FILE", help=f"renew the tables there, between the two markers "
                             f"<!-- benchmarks {device}: begin --> and <!-- benchmarks {device}: end -->")
    gpu.add_argument("--tf32", action="store_true", help="let every contender use TF32 (default: none does)")
    return parser


class _Names(argparse.Action):
    """A list, its parts separated by blanks or commas; each once."""

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
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(names)}. Received: {text!r}.")
        return text
    command.add_argument(flag, nargs="+", action=_Names, default=default, metavar="NAME", convert=one,
                         help=f"some of {', '.join(names)} (default: all{'' if default else ' that can run here'})")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or larger. Received: {text!r}.")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, 0 or larger. Received: {text!r}.")
    return value


def _check_files(options: argparse.Namespace) -> None:
    """What would fail at the end, after all the work, fails now."""
    if options.json and (not Path(options.json).absolute().parent.is_dir() or Path(options.json).is_dir()):
        raise ValueError(f"--json: expected a file in a folder that exists. Received: {options.json}.")
    if options.markdown:
        table.between_markers(Path(options.markdown).read_text(encoding="utf-8"), options.device, "", options.markdown)
