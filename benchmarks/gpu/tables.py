"""The rows of the GPU's benchmarks as sentences and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.contenders import CONTENDERS, INPUT_SHAPES
from benchmarks.gpu.rows import gap, of_part
from benchmarks.rows import Row
from benchmarks.table import Table, milliseconds

ORDER = (*CONTENDERS["gpu"], "torch")
STEPS = ("Training steps in milliseconds. The last columns are xpnet's time divided by that of "
         "PyTorch, eager and as a CUDA graph, each in its better layout; below 1 is faster than "
         "PyTorch. A missed target is shown with its gap")
MEMORY = ("Peak memory of a training step in MB, without the data set: of the arrays in use, in "
          "brackets of the memory taken from the GPU, and the peak that xpnet predicts")
BANDWIDTH = ("Kernels that move data, by the size of x: GB/s of the bytes that have to be moved, "
             "in brackets as a share of a copy's bandwidth")
PRODUCTS = ("Matrix products and convolutions in TFLOP/s, xpnet's and PyTorch's (cuBLAS, cuDNN in "
            "its better layout), with TF32 and without; in brackets the time divided by PyTorch's, "
            "below 1 is faster")
ACCURACY = ("Seconds until a test accuracy is reached, from the start of the process (mnist) or "
            "from the first batch (cifar)")


def blocks(rows: Sequence[Row], form: Callable[[Table], str]) -> list[str]:
    """A sentence and its table for each part that has rows."""
    tables = ((STEPS, step_table(rows)), (MEMORY, memory_table(rows)),
              (BANDWIDTH, bandwidth_table(rows)), (PRODUCTS, product_table(rows)),
              (ACCURACY, accuracy_table(rows)))
    return [text for sentence, table in tables if len(table) > 1
            for text in (f"{sentence}.", form(table))]


def facts(rows: Sequence[Row]) -> list[str]:
    """Sentences about all rows: date, machine, versions, kernels."""
    def values(key: str) -> str:
        return ", ".join(sorted({str(row[key]) for row in rows if row.get(key) is not None}))
    dates = sorted({row["date"] for row in rows})
    versions = sorted({(name, version) for row in rows
                       for name, version in row.get("versions", {}).items()})
    adam = "fused" if any(row["fused_adam"] for row in rows) else "in its default form"
    rounds = sorted({row["rounds"] for row in rows if "rounds" in row})
    sentences = [
        f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))} on {values('device')}, "
        f"driver {values('driver') or 'unknown'}, processor {values('cpu')}.",
        ", ".join(f"{name} {version}" for name, version in versions) + f"; PyTorch's Adam {adam}."]
    modes = {row["tf32"] for row in of_part(rows, "steps")}
    if modes:
        sentences.append(f"TF32 in the steps of every contender: {', '.join(sorted(modes))}.")
    if rounds:
        ends = dict.fromkeys((str(rounds[0]), str(rounds[-1])))
        sentences.append(f"Each figure is the median over rounds ({' to '.join(ends)}) in which "
                         "the contenders take turns.")
    sentences += [f"{row['contender']}, {row['net']} {row['batch']}: {row['warning']}."
                  for row in of_part(rows, "steps") if row.get("warning")]
    kernels = dict.fromkeys((row["contender"], row["kernels"]) for row in of_part(rows, "steps")
                            if "kernels" in row)
    return sentences + [f"{contender}: {kernel}." for contender, kernel in kernels]


def step_table(rows: Sequence[Row]) -> Table:
    """A line for each network, batch and TF32 setting: the time of every contender, and the ratios
    of "cupy" to PyTorch."""
    steps = of_part(rows, "steps")
    names = _present(steps)
    table = [["net", "batch", "TF32", *names, "cupy to eager", "cupy to graph"]]
    for (net, batch, tf32), line in _lines(steps, ("net", "batch", "tf32")):
        ours = line.get("cupy", {})
        table.append([net, str(batch), tf32,
                      *(milliseconds(line[name]["seconds"]) if name in line else ""
                        for name in names),
                      figure(ours, "of_eager"), figure(ours, "of_graph")])
    return table


def memory_table(rows: Sequence[Row]) -> Table:
    """The same lines, in megabytes."""
    steps = [row for row in of_part(rows, "steps") if row["memory"] is not None]
    names = _present(steps)
    table = [["net", "batch", "TF32", *names, "predicted"]]
    for (net, batch, tf32), line in _lines(steps, ("net", "batch", "tf32")):
        predicted = [row["predicted"] for row in line.values() if row["predicted"] is not None]
        table.append([net, str(batch), tf32, *(f"{line[name]['memory'] / 1e6:.0f} "
                                               f"({line[name]['reserved'] / 1e6:.0f})"
                                               if name in line else "" for name in names),
                      f"{predicted[0] / 1e6:.0f}" if predicted else ""])
    return table


def bandwidth_table(rows: Sequence[Row]) -> Table:
    """A line for each kernel, a column for each size; the last line is a copy."""
    kernels = of_part(rows, "bandwidth")
    sizes = sorted({row["megabytes"] for row in kernels})
    table = [["kernel", *(f"{size:g} MB" for size in sizes), "gap"]]
    found = {(row["kernel"], row["megabytes"]): row for row in kernels}
    for kernel in dict.fromkeys(row["kernel"] for row in kernels):
        line = [found.get((kernel, size)) for size in sizes]
        gaps = [past for row in line if row and (past := gap(row, "of_copy"))]
        table.append([kernel, *(f"{row['bytes_per_second'] / 1e9:.0f} ({100 * row['of_copy']:.0f} "
                                "%)" if row else ""
                                for row in line), f"{max(gaps):.2f} times" if gaps else ""])
    copies = {row["megabytes"]: row["copy_bytes_per_second"] for row in kernels}
    return ([*table, *([["a copy", *(f"{copies[size] / 1e9:.0f}" for size in sizes), ""]] if kernels
                       else [])])


def product_table(rows: Sequence[Row]) -> Table:
    """A line for each shape and direction: TFLOP/s with TF32 and without."""
    table = ([["product", "batch", "direction",
               *(f"{name} {tf32}" for tf32 in ("TF32", "float32") for name in ("cupy", "torch"))]])
    columns = [(mode, name) for mode in ("always", "never") for name in ("cupy", "torch")]
    lines: dict[tuple[str, int, str], dict[tuple[str, str], Row]] = {}
    for row in of_part(rows, "products"):
        lines.setdefault((row["product"], row["batch"], row["direction"]),
                         {})[row["tf32"], row["contender"]] = row
    for (product, batch, direction), line in lines.items():
        table.append([product, str(batch), direction,
                      *(_rate(line[column]) if column in line else "" for column in columns)])
    return table


def _rate(row: Row) -> str:
    ratio = row.get("of_torch")
    return f"{row['flops_per_second'] / 1e12:.3g}{f' ({ratio:.2f})' if ratio is not None else ''}"


def accuracy_table(rows: Sequence[Row]) -> Table:
    """A line for each contender."""
    table = [["part", "net", "batch", "contender", "goal", "reached", "epochs", "seconds",
              "to eager", "to graph"]]
    for row in (*of_part(rows, "mnist"), *of_part(rows, "cifar")):
        table.append([row["part"], row["net"], str(row["batch"]), row["contender"],
                      f"{100 * row['goal']:g} %",
                      f"{100 * row['accuracy']:.2f} %", str(row["epochs"]), f"{row['seconds']:.2f}",
                      figure(row, "of_eager"), figure(row, "of_graph")])
    return table


def figure(row: Row, name: str) -> str:
    """A figure, e.g. "0.21", and if its target is missed, e.g. "0.31 (target 0.25, missed 1.24
    times)"."""
    value, past = row.get(name), gap(row, name)
    if value is None:
        return ""
    note = f" (target {row['targets'][name]:g}, missed {past:.2f} times)" if past else ""
    return f"{value:.2f}{note}"


def plan_table(rows: Sequence[Row]) -> Table:
    """A line for each key whose usual alternative is not the fastest, the largest gains of time
    first."""
    better = [row for row in of_part(rows, "plans") if row["best"] != row["usual"]]
    better.sort(key=lambda row: row["seconds"] - row["usual_seconds"])
    return [["key", "usual", "best", "usual us", "best us", "of the time"],
            *([row["key"], str(row["usual"]), str(row["best"]), f"{1e6 * row['usual_seconds']:.1f}",
               f"{1e6 * row['seconds']:.1f}", f"{row['seconds'] / row['usual_seconds']:.2f}"]
              for row in better)]


def missed(rows: Sequence[Row]) -> list[str]:
    """A line for each target that is missed, or a line that there is none."""
    lines = [f"missed {past:.2f} times: {row['part']} {row.get('net', row.get('kernel'))} "
             f"{row.get('batch', row.get('megabytes'))}: {name} {row[name]:.2f}, target "
             f"{row['targets'][name]:g}"
             for row in rows for name in row.get("targets", {}) if (past := gap(row, name))]
    some = any(row.get(name) is not None for row in rows for name in row.get("targets", {}))
    return lines or ["every measured target is reached" if some else "no target was measured"]


def _present(rows: Sequence[Row]) -> list[str]:
    found = {row["contender"] for row in rows}
    return [name for name in ORDER if name in found]


def _lines(rows: Sequence[Row],
           names: tuple[str, ...]) -> list[tuple[tuple[str, ...], dict[str, Row]]]:
    """The rows of each contender by the values of `names`, in the order of the networks."""
    lines: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: (list(INPUT_SHAPES).index(row["net"]), row["batch"])):
        lines.setdefault(tuple(row[name] for name in names), {})[row["contender"]] = row
    return list(lines.items())
