"""One call of a method on two backends: how it is run, and how close the results must be.

`exact` cases must agree in every bit: copies, comparisons, integer arithmetic, and sums whose order
the contract fixes. The others agree in norm.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.rules import RULES

TOLERANCE = {np.float16: 1e-2, np.float32: 1e-5, np.float64: 1e-12}     # ||a - b|| / ||b||


@dataclass(frozen=True)
class Case:
    """The call `backend.method(**arrays, **options)`. The arrays are made on the host, and copied
    to the backend before the call."""

    method: str
    label: str
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    writes: tuple[str, ...] = ()        # the arrays that the method writes
    exact: bool = False

    def __str__(self) -> str:
        return f"{self.method}-{self.label}".replace(" ", "")


def call(backend: Backend, method: str, arguments: dict[str, Any]) -> Any:
    """backend.method(**arguments). The slots of an update are passed by their names, and are None
    by default; the parts of `joined` are all arguments but the axis; "states 0" and "states 1" of a
    scan are the list `states`, and so on."""
    if method == "joined":
        return backend.joined([a for name, a in arguments.items() if name != "axis"],
                              arguments["axis"])
    if method == "update":
        slots = RULES[arguments["rule"]].slots
        given = {name: a for name, a in arguments.items() if name not in slots}
        arguments = given | {"slots": [arguments.get(name) for name in slots]}
    if method.startswith("scan"):
        lists = {name: [arguments[key] for key in arguments if key.startswith(f"{name} ")]
                 for name in ("states", "dstates", "kept")}
        arguments = ({key: a for key, a in arguments.items() if " " not in key}
                     | {name: arrays for name, arrays in lists.items() if arrays})
    return getattr(backend, method)(**arguments)


def flat(returned: Any) -> list[Any]:
    """What a method returned, as a list: nothing, a value, or tuples of them."""
    if isinstance(returned, tuple):
        return [value for part in returned for value in flat(part)]
    return [] if returned is None else [returned]


def run(case: Case, backend: Backend) -> list[np.ndarray]:
    """The returned and then the written arrays of a case on a backend, copied to the host.

    Fails if a result is not C-contiguous that must be, or if the method wrote into an array that it
    should only read.
    """
    arrays = {name: backend.asarray(a.copy()) for name, a in case.arrays.items()}
    for name, a in arrays.items():
        if isinstance(a, np.ndarray) and name not in case.writes:
            a.flags.writeable = False
    with backend.scope():
        returned = call(backend, case.method, arrays | case.options)
    results = flat(returned)
    results += [arrays[name] for name in case.writes]
    for name, a in case.arrays.items():
        unchanged = name in case.writes or same_bits(backend.to_numpy(arrays[name]), a)
        assert unchanged, f"{case}: wrote into {name}"
    if case.method == "argmax_dtype":
        return [np.array(np.dtype(returned).str)]
    if case.method in ("scope", "stream"):
        return []
    if case.method == "feed":
        results = _batches_of(returned, backend, len(case.options["samples"]))
    if case.method == "collector":
        return _collected(returned, backend)
    if case.method == "capture":
        with backend.scope():
            results = [returned() for _ in range(5)]
    assert all(r.flags.c_contiguous for r in _contiguous(case, results)), (
        f"{case}: a result is not C-contiguous")
    hosts = [np.array(backend.to_numpy(r)) for r in results]
    # its content is not specified
    return [np.zeros_like(h) for h in hosts] if case.method == "empty" else hosts


def _contiguous(case: Case, results: list[Any]) -> list[Any]:
    """The results that must be C-contiguous: all but those that may be transposed views, what a
    scan keeps, and its da and ds."""
    if case.method in ("scan", "scan_product"):
        return results[:1 + sum(name.startswith("states ") for name in case.arrays)]
    return results[2:] if case.method in ("scan_backward", "scan_product_backward") else results


def _batches_of(feed: Any, backend: Backend, samples: int) -> list[Any]:
    """Batches in order and in reverse order, of several sizes, and one written into an existing
    array."""
    with backend.scope():
        results = [feed.batch(0, samples), feed.batch(samples // 2, samples)]
        feed.arrange(np.arange(samples)[::-1].copy())
        results += [feed.batch(k, k + 1) for k in range(min(samples, 5))]
        out = backend.zeros(results[0].shape, results[0].dtype)
        assert feed.batch(0, samples, out) is out
    return [*results, out]


def _collected(collector: Any, backend: Backend) -> list[np.ndarray]:
    """Results of several shapes, copied to the host."""
    ys = [normal(*shape, seed=k) for k, shape in enumerate([(3, 4), (5,), (2, 3, 4, 7)] * 3)]
    outs = [np.empty((y.shape[-1], *y.shape[:-1]), y.dtype) for y in ys]
    with backend.stream(), collector:
        for y, out in zip(ys, outs, strict=True):
            collector.put(backend.asarray(y), out)
    return outs


def agree(case: Case, actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Fails if the results of two backends differ: in number, dtype or shape, in a bit (`exact`),
    or in norm."""
    assert len(actual) == len(expected), f"{case}: {len(actual)} results, expected {len(expected)}"
    for k, (a, b) in enumerate(zip(actual, expected)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), \
            f"{case}: result {k} is {a.dtype} {a.shape}, expected {b.dtype} {b.shape}"
        if case.exact or b.dtype.kind != "f":
            assert same_bits(a, b), (f"{case}: result {k} differs in {differences(a, b)} of "
                                     f"{b.size} elements")
        else:
            error, bound = distance(a, b), TOLERANCE[b.dtype.type]
            assert error <= bound, (f"{case}: result {k} is {error:.1e} away in norm, more than "
                                    f"{bound:.0e}")


def differences(a: np.ndarray, b: np.ndarray) -> int:
    """The number of elements that differ in a bit. All NaNs count as equal, 0.0 and -0.0 do not."""
    if b.dtype.kind != "f":
        return int((a != b).sum())
    bits = np.dtype(f"u{b.itemsize}")
    differ = np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)
    return int((differ & ~(np.isnan(a) & np.isnan(b)).reshape(differ.shape)).sum())


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and differences(a, b) == 0


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """||a - b|| / ||b|| over the finite elements; infinite if NaNs or infinities are at different
    positions."""
    finite = np.isfinite(b)
    if (not np.array_equal(a[~finite], b[~finite], equal_nan=True)
        or not np.isfinite(a[finite]).all()):
        return np.inf
    a, b = a[finite].astype(np.float64), b[finite].astype(np.float64)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def public_methods() -> set[str]:
    """Names of the public methods of the class Backend."""
    return {name for name in dir(Backend)
            if not name.startswith("_") and callable(getattr(Backend, name))}


def different_signatures(cls: type[Backend]) -> set[str]:
    """Names of the methods whose parameters or defaults differ from those in Backend."""
    def signature(owner: type[Backend], name: str) -> list[tuple[Any, ...]]:
        return [(p.name, p.kind, p.default)
                for p in inspect.signature(getattr(owner, name)).parameters.values()]
    return {name for name in public_methods() if signature(cls, name) != signature(Backend, name)}


# --- data -----------------------------------------------------------------------------------------

def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def ties(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Few different values, so that most windows have several elements equal to the maximum."""
    return np.random.default_rng([1, *shape]).integers(-2, 2, shape).astype(dtype)


def special(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Both zeros, both infinities and NaNs among few other values."""
    values = np.array([-np.inf, -np.inf, -1, -0.0, 0.0, 1, np.inf, np.nan])
    return np.random.default_rng([2, *shape]).choice(values, shape).astype(dtype)
