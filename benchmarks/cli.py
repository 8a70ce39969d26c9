"""The command `python -m benchmarks cpu | gpu | parallel`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import options as command
from benchmarks import parallel, parts, recurrent, table
from benchmarks.contenders import Job
from benchmarks.facts import BUSY, cpu_model, facts, load_average
from benchmarks.gpu import command as gpu
from benchmarks.growth import GROWTH, growth_tables
from benchmarks.race import ContenderError, Turns, present
from benchmarks.rows import Row, above_pytorch, disturbed, merge, of_part, read, with_ratios
from xpnet.io.files import write_atomically


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks, print and write their results, and return the exit status."""
    try:
        options = command.parser().parse_args(arguments)
        if options.device != "cpu":
            {"gpu": gpu, "parallel": parallel}[options.device].run(options)
            return 0
        rows = _old_rows(options)
        left_out: dict[str, str] = {}
        broken: list[str] = []
        if not options.tables_only:
            rows, left_out, broken = _measure(options, rows)
        _show(options, rows, left_out)
        if broken:
            raise ContenderError("\n".join([f"{len(broken)} processes failed, so rows are missing:",
                                            *broken]))
    except (ValueError, OSError, ContenderError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: interrupted; on a CPU the rows of an unfinished part are not written",
              file=sys.stderr)
        return 130
    return 0


def _old_rows(options: argparse.Namespace) -> list[Row]:
    """The rows to start from. Files that could not be written at the end are refused here."""
    if (options.merge or options.tables_only) and not options.json:
        raise ValueError("--merge, --tables-only: expected --json FILE with the rows of an earlier "
                         "run. Received: no --json.")
    if (options.json and (not Path(options.json).absolute().parent.is_dir()
                          or Path(options.json).is_dir())):
        raise ValueError("--json: expected a file in a folder that exists. Received: "
                         f"{options.json}.")
    if options.markdown:
        table.between_markers(Path(options.markdown).read_text(encoding="utf-8"), "cpu", "",
                              options.markdown)
    if options.tables_only or (options.merge and Path(options.json).exists()):
        return read(options.json, cpu_model())
    return []


def _measure(options: argparse.Namespace,
             rows: list[Row]) -> tuple[list[Row], dict[str, str], list[str]]:
    """The old rows with the new ones, which are written after each part; the contenders that cannot
    run here, with the reason; the errors of processes that failed."""
    job = Job("cpu", "", max(options.threads), modes=tuple(options.modes), seconds=options.seconds,
              fused_adam=options.fused_adam)
    where: Row = {"cpu": cpu_model(), "date": datetime.now(UTC).isoformat(timespec="seconds"),
                  "load": load_average(), "measured_for": options.seconds, "tf32": False,
                  "fused_adam": options.fused_adam}
    if where["load"] is not None and where["load"] > BUSY:
        _say(f"the machine is busy (load average {where['load']:.2f}): this slows down threads "
             "that wait for each other more than single threads, so the ratios will be wrong too")
    contenders, left_out = present(options.contenders, job, _say)
    turns = Turns(contenders, options.rounds, time.monotonic() + 60 * options.minutes)
    run: dict[str, Callable[[], list[Row]]] = {     # the longest last: it gets the remaining time
        "convolutions": lambda: parts.single_convolutions(options.threads, turns, job, _say),
        "recurrent": lambda: parts.recurrent(options.threads, turns, job, _say),
        "growth": lambda: parts.growth(max(options.threads), turns, job, _say),
        "steps": lambda: parts.steps(options.nets, options.batches, options.threads, turns, job,
                                     _say),
    }
    for part, measure in run.items():
        if part in options.parts:
            rows = with_ratios(merge(rows, [row | where for row in measure()]))
            if options.json:
                write_atomically(options.json, (json.dumps(rows, indent=1) + "\n").encode())
    return rows, left_out, turns.broken


def _show(options: argparse.Namespace, rows: list[Row], left_out: dict[str, str]) -> None:
    """Print the tables, and replace them in the page."""
    if not rows:
        _say("no rows, so no tables")
        return
    sentences = facts(rows) + [f"Left out: {contender}: {reason}"
                               for contender, reason in left_out.items()]
    print("\n".join(sentences), *_blocks(rows, table.as_text, absolute=True), sep="\n\n")
    print("\n".join(["", *above_pytorch(rows), *disturbed(rows)]))
    if options.markdown:
        # Times on this CPU say little about another one; ratios do.
        content = "\n\n".join(["\n".join(f"- {sentence}" for sentence in sentences),
                               *_blocks(rows, table.as_markdown, absolute=False)])
        document = Path(options.markdown).read_text(encoding="utf-8")
        write_atomically(options.markdown,
                         table.between_markers(document, "cpu", content, options.markdown).encode())


def _blocks(rows: list[Row], form: Callable[[table.Table], str], *, absolute: bool) -> list[str]:
    """A sentence and its table for each part that has rows; `absolute`: with times and rates, not
    only ratios."""
    blocks = []
    if of_part(rows, "steps"):
        blocks += [f"Milliseconds; in brackets {table.RATIO}." if absolute
                   else f"The figure is {table.RATIO}.",
                   form(table.step_table(rows, times=absolute))]
        memory = table.memory_table(rows)
        if len(memory) > 1:
            blocks += [f"Memory: {table.MEMORY}.", form(memory)]
    convolutions = of_part(rows, "convolutions")
    if convolutions and (absolute or any(row["of_peak"] is not None for row in convolutions)):
        start = "GFLOP/s, in brackets" if absolute else "Convolutions:"
        blocks += [f"{start} {table.CONVOLUTION}.",
                   form(table.convolution_table(rows, rates=absolute))]
    if of_part(rows, "recurrent"):
        start = "Recurrent layers: milliseconds, in brackets" if absolute else "Recurrent layers:"
        blocks += [f"{start} {recurrent.RATIO}.", form(recurrent.table(rows, times=absolute))]
    growing = growth_tables(rows)
    if growing:
        blocks += [f"Growth: {GROWTH}.", *map(form, growing)]
    return blocks


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
