"""The commands `summary`, `verify` and `doctor`, which show something."""

from __future__ import annotations

import argparse
from pathlib import Path

from xpnet.backends import get_backend
from xpnet.checks import perhaps, shown
from xpnet.cli import networks


def verify(options: argparse.Namespace) -> int:
    """Print a row for each item of the catalogue; exit status 1 if a check failed."""
    from xpnet.backends import available
    from xpnet.catalogue.verify import verify as rows_of
    backends = {name: get_backend(name) for name in options.backend or available()}
    print("gradient: relative error of the gradients in float64, against finite differences\n"
          f"{', '.join(backends)}: relative error of the output and all gradients in float32, "
          "against the\n"
          "    reference implementation in float64; then the code that ran: the backend's own, or "
          "another\n"
          '    implementation that it falls back to ("array code": the item calls no method of a '
          'backend)\n')
    print(f"{'':24}{'gradient':>10}", *(f"  {name:22}" for name in backends), sep="")
    shown, rows = None, []
    for row in rows_of(backends):
        if row.family != shown:
            print(row.family)
            shown = row.family
        cells = [f"{'FAILED' if isinstance(row.gradient, str) else f'{row.gradient:.1e}':>10}"]
        for result in row.backends.values():
            cells.append("  " + ("FAILED" if isinstance(result, str) else
                                 f"{result.error:.1e} "
                                 f"{'+'.join(result.ran) or 'array code'}").ljust(22))
        print(f"  {row.name:22}", "".join(cells).rstrip(), sep="", flush=True)
        rows.append(row)
    failures = [failure for row in rows for failure in row.failures]
    print()
    for name, backend in backends.items():
        results = [row.backends[name] for row in rows]
        own = sum(not isinstance(result, str) and backend.name in result.ran for result in results)
        print(f"{name}: its own code ran in {own} of {len(rows)} items")
    print(f"{len(rows)} items, {len(failures)} failures", *failures, sep="\n")
    return 1 if failures else 0


def doctor(options: argparse.Namespace) -> int:
    from xpnet.inspect.doctor import findings
    if options.json:
        import json
        print(json.dumps([vars(finding) for finding in findings()], indent=1))
        return 0
    for finding in findings():      # each as soon as it is there: the last ones are measured
        print(finding, flush=True)
    return 0


def summary(options: argparse.Namespace) -> int:
    from xpnet.models import MODELS
    from xpnet.network import load
    name = options.network
    if name not in MODELS and not Path(name).exists():
        raise ValueError(f"summary: expected a file, or one of {', '.join(MODELS)}"
                         + perhaps(name, MODELS)
                         + f". Received: {shown(name)}, which is neither.")
    net = MODELS[name](backend="numpy") if name in MODELS else load(
        name, backend="numpy", layers=networks.own_layers("summary", options.model))
    if options.draw is not None:
        net.draw(options.draw)
    print(net.summary())
    return 0
