"""Checks of the optimizers' CUDA kernels against base.py in double precision, and mistakes they
must notice."""

from __future__ import annotations

from typing import Any

import numpy as np
from fused_checks import double, drawn, largest, near
from kernel_setting import Mutant, Setting, base
from parity import call, ties

from xpnet.backends import Window
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.backend import CupyBackend

DECAY = 0.3


def check_optimizers(s: Setting) -> None:
    n = int(np.prod(s.shape))
    w, g, m, v, u = (drawn(s, n, seed=seed) for seed in range(5))
    square, change = v * v, u * u
    for decayed in {0, n // 3, n}:
        hyper = [1e-2, 0.9, 0.999, 1e-3, DECAY, 1 - 0.9**3, 1 - 0.999**3]
        updates(s, "adam", hyper, decayed, w=w, g=g, m=m, v=square)
        updates(s, "adamw", hyper, decayed, w=w, g=g, m=m, v=square)
        for mean in (None, m):
            for velocity in (None, u):
                updates(s, "rmsprop", [0.01, 0.9, 1e-3, DECAY, 0.9], decayed, w=w, g=g,
                        v=m * m + abs(v) + s.dtype.type(1), mean=mean, velocity=velocity)
        updates(s, "sgd", [0.1, 0.9, DECAY], decayed, w=w, g=g, v=m)
        updates(s, "nesterov", [0.1, 0.9, DECAY], decayed, w=w, g=g, v=m)
        updates(s, "sgd", [0.1, 0.9, DECAY], decayed, w=w, g=g, v=None)
        updates(s, "adamax", [1e-2, 0.9, 0.999, 1e-3, DECAY, 1 - 0.9**3], decayed, w=w, g=g, m=m,
                u=abs(v))
        updates(s, "amsgrad", hyper, decayed, w=w, g=g, m=m, v=square, top=change)
        updates(s, "nadam", [1e-2, 2e-2, 0.9, 0.999, 1e-3, DECAY, 1 - 0.999**3], decayed, w=w, g=g,
                m=m, v=square)
        updates(s, "rprop", [1e-2, 0.5, 1.2, 0.1, 1.0, DECAY], decayed, w=w, g=g, before=m,
                s=abs(v) * (np.arange(n) % 3 > 0))
        updates(s, "adagrad", [0.01, 1e-3, DECAY], decayed, w=w, g=g, s=square)
        updates(s, "adadelta", [1.0, 0.9, 1e-3, DECAY], decayed, w=w, g=g, v=square, u=change)
        updates(s, "lion", [1e-2, 0.9, 0.99, DECAY], decayed, w=w, g=g, m=m)
    # no variance is negative
    never = {"v": square, "mean": s.dtype.type(100) * (abs(m) + s.dtype.type(1)), "velocity": None}
    updates(s, "rmsprop", [1e-4, 0.9, 1e-2, 0, 0], 0, w=w, g=g, **never)
    nan = np.where(np.arange(n) % 3 == 0, np.nan, g).astype(s.dtype)
    updates(s, "adamax", [1e-2, 0.9, 0.999, 1e-3, 0, 0.5], 0, w=w, g=nan, m=m, u=abs(v))
    updates(s, "lion", [1e-2, 0.9, 0.99, 0], 0, w=w, g=nan, m=m)
    updates(s, "rprop", [1e-2, 0.5, 1.2, 0.1, 1.0, 0], 0, w=w, g=nan, before=m, s=abs(v))


def updates(s: Setting, rule: str, hyper: list[float], decayed: int, /, **given: Any) -> None:
    """The rule on a backend and on base.py: every buffer but the gradients is written."""
    buffers = {name: a for name, a in given.items() if isinstance(a, np.ndarray)}
    ours, right = ({name: move(a) for name, a in buffers.items()} for move in (s.to_device, double))
    options = {"rule": rule, "decayed": decayed}
    call(s.backend, "update", ours | options | {"hyper": s.backend.asarray(np.array(hyper))})
    call(base, "update", right | options | {"hyper": np.array(hyper)})
    for name, result in ours.items():       # a small step from where it was
        near(s, result, right[name], scale=largest(buffers[name]))


GRIDS = {"optimizers": check_optimizers}


def every_instantiation(backend: CupyBackend) -> None:
    """Asks for each kernel once: one element and 16 bytes at a time."""
    for dtype in cuda_launch.TYPES:
        for size in (5, cuda_launch.widths(dtype)[-1]):
            check_optimizers(Setting(backend, (1, 1, 1, size), Window.make(1), dtype, ties, 0,
                                     False))


# Mistakes: the file, what stands there, what stands there instead, and the check that has to
# notice.
MUTANTS: dict[str, Mutant] = {
    "decay ends at a vector's end": ("optimizers", "slot, i + u * STEP(V) + k < decayed);",
                                     "slot, i + u * STEP(V) < decayed);",
                                     "optimizers"),
    "a slot that is not there is written": ("optimizers", "if (held >> s & 1) store_turn",
                                            "store_turn", "optimizers"),
    "a negative variance has a root": ("optimizers", "if (spread < Number(0)) spread",
                                       "if (spread < Number(-1e9)) spread", "optimizers"),
    "a NaN is no largest gradient": ("optimizers", "old < fresh || fresh != fresh ? fresh",
                                     "old < fresh ? fresh", "optimizers"),
    "a step after a change of sign": ("optimizers", "slot[0] = same < zero ? zero : g;",
                                      "slot[0] = g;", "optimizers"),
}
