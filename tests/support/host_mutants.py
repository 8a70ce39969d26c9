"""Mistakes in the host's code of the CUDA path, each with a test that must notice it.

    python tests/support/host_mutants.py [--mistake NAME] TEST ..

runs pytest on the tests. With --mistake one module is imported with that mistake in it; no file
changes. check_runs.py runs many of them, in forks of a process that has imported xpnet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any, NamedTuple

import pytest
from processes import ROOT

import xpnet  # noqa: F401 - for the forks

HERE = "tests/backends/cupy"
CAPTURE, GRAPHS, PREDICTION, INPUT, STREAMS, BACKEND, PATHS, KERNELS, TUNING, CUBLAS = (
    f"{HERE}/test_{name}.py::test_" for name in (
        "capture", "capture_graphs", "capture_prediction", "input_pipeline", "streams",
        "cupy_backend", "cupy_paths", "cuda_kernels", "tuning", "cublas"))
OTHER_ARRAYS = f"{KERNELS}kernels_agree_with_base[other_arrays]"
RING = f"{INPUT}every_form_of_samples_comes_through_the_ring"
GROUPS = "tests/training/test_accumulate.py::test_captured_steps_are_the_same[2-late]"
OUTSIDE = f"{CAPTURE}what_a_captured_step_returns_is_its_own_until_the_next"


class Mutant(NamedTuple):
    """A mistake: what the file has, what it gets instead, the test that must fail, and what its
    output must contain, so that it fails for the right reason."""

    file: str
    old: str
    new: str
    test: str
    output: str

    @property
    def module(self) -> str:
        name = self.file.removesuffix(".py").replace("/", ".")
        return name if name.startswith("xpnet.") else f"xpnet.{name}"

    def text(self) -> str:
        """The source with the mistake."""
        right = (ROOT / self.file).read_text(encoding="utf-8")
        if right.count(self.old) != 1:
            raise ValueError(f"{self.file}: expected {self.old!r} once. Received: "
                             f"{right.count(self.old)} times.")
        return right.replace(self.old, self.new)


CUPY = "backends/cupy"
MUTANTS: dict[str, Mutant] = {
    # --- what CuPy does not have
    "a keyword that only NumPy has": Mutant(
        f"{CUPY}/batches.py", "self.xp.arange(N)", "self.xp.arange(N, like=None)",
        f"{INPUT}what_happens_between_captured_steps[int16-at once]", "cupy.arange"),
    "a function of NumPy for an array of the GPU": Mutant(
        f"{CUPY}/backend.py", "return self.xp.ascontiguousarray(a)",
        "return np.ascontiguousarray(a)", OTHER_ARRAYS, "Implicit conversion"),
    # --- launches
    "an array that is not contiguous": Mutant(
        f"{CUPY}/pool.py", "    x = self._contiguous(x)\n    y = self.empty((C, OH, OW, N), "
        "x.dtype)\n    argmax", "    y = self.empty((C, OH, OW, N), x.dtype)\n    argmax",
        OTHER_ARRAYS, "not contiguous"),
    "an integer of 32 bits for one of 64": Mutant(
        f"{CUPY}/elementwise.py", "bits, np.int64(n),", "bits, np.int32(n),",
        f"{BACKEND}methods_run_on_their_own_device_whatever_the_current_one",
        "Received: Pu4 i4"),
    "a number of Python": Mutant(
        f"{CUPY}/pool.py", "x, y, argmax, np.int32(C),", "x, y, argmax, C,", OTHER_ARRAYS,
        "is untyped"),
    "two arguments of one type change places": Mutant(
        f"{CUPY}/totals.py", "hits, np.int32(K), np.int32(N)", "hits, np.int32(N), np.int32(K)",
        f"{PATHS}the_launches_of_a_tally", "AssertionError"),
    "two numbers of a struct change places": Mutant(
        f"{CUPY}/launch.py", "*window.stride, top, left,", "*window.stride, left, top,",
        f"{BACKEND}the_struct_is_the_one_of_the_kernels", "AssertionError"),
    "a struct with a number too few": Mutant(
        f"{CUPY}/batches.py", '"VALUES"))', '"VALUES") - 1)', OUTSIDE,
        "assign: expected the arguments"),
    "values after the eighth are written to the start": Mutant(
        f"{CUPY}/batches.py", "out[start:] if start else out", "out",
        f"{INPUT}values_of_one_launch_and_of_several[9]", "AssertionError"),
    "a grid that is a list": Mutant(
        f"{CUPY}/launch.py", "return (_blocks(threads, THREADS, MAX_GRID[0]), 1, 1),",
        "return [_blocks(threads, THREADS, MAX_GRID[0]), 1, 1],", OUTSIDE,
        "isinstance(grid, tuple)"),
    "more shared memory than a block gets unasked": Mutant(
        f"{CUPY}/backend.py", "if shared > USUAL_SHARED:", "if False:",
        f"{KERNELS}kernels_agree_with_base[banks]", "bytes of shared memory"),
    # --- devices
    "memory of the GPU that is current": Mutant(
        f"{CUPY}/backend.py", "with self._scope:\n            return self.xp.empty(",
        "if True:\n            return self.xp.empty(",
        f"{BACKEND}methods_run_on_their_own_device_whatever_the_current_one", "the array is on"),
    "a launch on the GPU that is current": Mutant(
        f"{CUPY}/backend.py", "with self._scope:\n            function =", "if True:\n"
        "            function =",
        f"{BACKEND}methods_run_on_their_own_device_whatever_the_current_one", "the array is on"),
    "streams of the GPU that is current": Mutant(
        f"{CUPY}/streams.py", "with cupy.cuda.Device(device):", "if True:",
        f"{STREAMS}another_gpu_is_current", "does not match"),
    "the stream of another GPU": Mutant(
        f"{CUPY}/streams.py", "around = self.xp.cuda.get_current_stream(self.device)",
        "around = self.xp.cuda.get_current_stream()",
        f"{STREAMS}another_gpu_is_current", "cudaErrorInvalidResourceHandle"),
    "threads share their streams": Mutant(
        f"{CUPY}/streams.py", "class Lane(threading.local):", "class Lane:",
        f"{STREAMS}each_thread_has_streams_of_its_own", "AssertionError"),
    "the GPU that is current is waited for": Mutant(
        f"{CUPY}/backend.py", "self.xp.cuda.Device(self.device).synchronize()",
        "self.xp.cuda.Device().synchronize()",
        f"{STREAMS}synchronize_waits_for_the_gpu_of_the_backend", "AssertionError"),
    "a kernel that failed is not waited for": Mutant(
        f"{CUPY}/backend.py", "            self.synchronize()          # errors", "            # "
        "errors", f"{BACKEND}a_gpu_whose_kernels_fail_when_they_run", "DID NOT RAISE"),
    # --- captures
    "an array from the host in a graph": Mutant(
        f"{CUPY}/batches.py", "self._zero if position is None else position",
        "self.asarray(np.zeros(1, np.int64)) if position is None else position", OUTSIDE,
        "H2D transfers are disallowed"),
    "the default stream is captured": Mutant(
        f"{CUPY}/capture.py", "stream = self._lane.compute", "stream = "
        "self.xp.cuda.Stream(null=True)", OUTSIDE, "cannot capture on the default"),
    "a stream that the default one waits for is captured": Mutant(
        f"{CUPY}/streams.py", "self.compute = cupy.cuda.Stream(non_blocking=True)",
        "self.compute = cupy.cuda.Stream()", OUTSIDE, "nobody could use the default one"),
    "the pool of a graph gives its memory back": Mutant(
        f"{CUPY}/capture.py", "self._graph, self._result = graph, result",
        "self._graph, self._result = graph, result\n            memory._pool.free_all_blocks()",
        OUTSIDE, "cudaErrorIllegalAddress"),
    "the pool of a graph goes before the graph": Mutant(
        f"{CUPY}/capture.py", "self._graph, self._result = graph, result",
        "self._graph, self._result, self._memory = graph, result, None", OUTSIDE,
        "memory that was given back"),
    "memory that became scarce while a step was recorded": Mutant(
        f"{CUPY}/capture.py", "if memory.given_back() != before:", "if False:",
        f"{CAPTURE}a_graph_whose_memory_was_freed_is_dropped[True-1048576]", "assert [] == [True]"),
    "arrays of a graph from the pool of all": Mutant(
        f"{CUPY}/capture.py", "with self._memory.used():", "if True:",
        f"{CAPTURE}steps_by_hand_with_batches_of_several_sizes", "cudaErrorIllegalAddress"),
    "a step keeps its memory in a cycle": Mutant(
        "xpnet/training/step.py", "partial(_step_of, weakref.ref(owner), self.places",
        "partial(_step_of, lambda: owner, self.places",
        f"{CAPTURE}a_dropped_step_frees_its_memory_at_once[6]", "assert gpus.used == used"),
    "settings that changed are not sent again": Mutant(
        "xpnet/optim/base.py", "if values != self._sent:", "if not self._sent:",
        f"{GRAPHS}a_captured_step_has_the_learning_rate_of_its_call",
        "AssertionError"),
    "the share of a batch in its group is a number in the graph": Mutant(
        "xpnet/training/step.py", "shares[number:number + 1].astype(dy.dtype)",
        "dy.dtype.type(self._sent[number])", GROUPS, "AssertionError"),
    "the shares of a batch have another address in each step": Mutant(
        "xpnet/training/step.py", "net.backend.assign(self._shares, member.shares)",
        "self._shares = net.backend.asarray(np.array(member.shares))", GROUPS,
        "memory that was given back"),
    "settings have another address in each step": Mutant(
        "xpnet/optim/base.py", "self.buffers.backend.assign(self._rows, values)",
        "self.hyper = self._rows = self.buffers.backend.asarray(np.array(values))", OUTSIDE,
        "memory that was given back"),
    "a handle of cuBLAS is made in a graph": Mutant(
        f"{CUPY}/product.py", 'None if "_cublas" not in vars(self) and self._is_capturing() else ',
        "", f"{CUBLAS}no_handle_is_made_while_a_stream_is_captured", "AssertionError"),
    "time is taken in a graph": Mutant(
        f"{CUPY}/tuning.py", "if not self.autotune or self._is_capturing():",
        "if not self.autotune:", f"{TUNING}nothing_is_timed_while_a_graph_is_recorded", "Error"),
    # --- batches and results
    "the position of the batch stands still": Mutant(
        f"{CUPY}/batches.py", "else position, np.int64(samples))", "else position, np.int64(0))",
        f"{INPUT}what_happens_between_captured_steps[uint8-at once]", "AssertionError"),
    "the position of the batch moves twice": Mutant(
        f"{CUPY}/batches.py", "else position, np.int64(samples))", "else position, np.int64(2 * "
        "samples))", f"{PREDICTION}predictions_have_the_same_bits[8-at once]", "AssertionError"),
    "every captured prediction is of the same batch": Mutant(
        "xpnet/training/prediction.py", "advance(passes, *position)", "advance(passes)",
        f"{PREDICTION}predictions_have_the_same_bits[8-at once]", "AssertionError"),
    "a batch is read before it was copied": Mutant(
        f"{CUPY}/batches.py", "compute.wait_event(copies.record(slot.copied))",
        "copies.record(slot.copied)", f"{RING}[float32-late copies]", "AssertionError"),
    "a batch is copied before the last one was read": Mutant(
        f"{CUPY}/batches.py", "        copies.wait_event(slot.read)\n", "",
        f"{RING}[float32-late steps]", "AssertionError"),
    "memory of a batch is filled before its copy has ended": Mutant(
        f"{CUPY}/batches.py", "        slot.copied.synchronize()\n", "", f"{RING}[float32-late]",
        "AssertionError"),
    "a piece is filled before its copy has ended": Mutant(
        f"{CUPY}/uploads.py", "        piece.copied.synchronize()\n", "",
        f"{INPUT}large_arrays_are_uploaded_in_pieces[elements-late]", "AssertionError"),
    "a large array is copied on another stream": Mutant(
        f"{CUPY}/uploads.py", "stream = cuda.get_current_stream(self.device)",
        "stream = lane.copies", f"{INPUT}large_arrays_are_uploaded_in_pieces[elements-late]",
        "AssertionError"),
    "a result is read before its copy has ended": Mutant(
        f"{CUPY}/collector.py", "        slot.copied.synchronize()\n", "",
        f"{PREDICTION}results_of_every_shape_are_collected", "AssertionError"),
    "a result is copied before it is computed": Mutant(
        f"{CUPY}/collector.py", "stream = self.backend.xp.cuda.get_current_stream("
        "self.backend.device)", "stream = self.backend._lane.copies",
        f"{PREDICTION}results_of_every_shape_are_collected", "AssertionError"),
    "training does not wait for what came before": Mutant(
        f"{CUPY}/streams.py", "lane.compute.wait_event(around.record(lane.event))",
        "around.record(lane.event)", f"{STREAMS}training_waits_for_what_was_launched_before",
        "AssertionError"),
    "what comes after training does not wait for it": Mutant(
        f"{CUPY}/streams.py", "for stream in (lane.compute, lane.copies):",
        "for stream in (lane.copies,):", f"{CAPTURE}one_stream_for_all", "AssertionError"),
}


class WithMistake(SourceFileLoader):
    """Loads a module from other source than its file's."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self._text.encode(), self.path)


class Finder:
    """Finds the module of a mutant."""

    def __init__(self, mutant: Mutant) -> None:
        self._module, self._text = mutant.module, mutant.text()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == self._module else None
        if spec is not None:
            spec.loader = WithMistake(name, str(spec.origin), self._text)
        return spec


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mistake", choices=MUTANTS)
    parser.add_argument("tests", nargs="+")
    options = parser.parse_args(arguments)
    if options.mistake:
        mutant = MUTANTS[options.mistake]
        if mutant.module in sys.modules:
            for name in [name for name in sys.modules if name.split(".")[0] == "xpnet"]:
                del sys.modules[name]       # all are imported again, with the mistake
        assert mutant.module not in sys.modules
        sys.meta_path.insert(0, Finder(mutant))     # type: ignore[arg-type]
    return pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *options.tests])


if __name__ == "__main__":
    sys.exit(main())
