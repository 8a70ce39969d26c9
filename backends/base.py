"""The backend contract, and a reference implementation of every kernel in plain array code.

A backend has the array module `xp` and the operations that array modules lack or are slow at. The
methods here are the definition: short, with the formula visible, correct on any array module. Those
of matrix products, convolution, pooling, batch norm and recurrent layers are functions in
reference/. A subclass overrides what can be faster on its machine, and must agree with these
methods.

Everything is batch-last and C-contiguous: feature maps (C, H, W, N), features (D, N), filters
(F, C/groups, KH, KW). No method writes into its inputs. The caller owns what a method returns,
unless the method says "may be a view".

Names of gradients: `f_dx` and `f_dW` return the gradient with respect to x or W alone;
`f_backward` computes several of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from xpnet.backends import activations
from xpnet.backends.feed import Collector, Feed
from xpnet.backends.reference import conv, normalization, pool, product, recurrent
from xpnet.backends.rules import rule_for
from xpnet.backends.window import Window

Array = Any


def weighed(xp: Any, weight: Array, value: Array) -> Array:
    """weight * value, where 0 times anything is 0, also 0 times an infinity or a NaN."""
    return weight * xp.where(weight != 0, value, 0.0)


class Backend:
    """Kernels in plain `xp`. The docstring of this file describes the layout of arrays."""

    name = "base"
    captures = False            # whether `capture` makes calls faster

    def __init__(self, xp: Any = np, note: str = "") -> None:
        self.xp = xp
        self.note = note        # what "auto" could not use
        # the alternative that was measured to be fastest, by shape
        self.tuning: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<backend {self.name}{': ' + self.note if self.note else ''}>"

    # --- memory -----------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of the backend with unspecified content. Kernels allocate their outputs here."""
        return self.xp.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new array of zeros."""
        out = self.empty(shape, dtype)
        out.fill(0)
        return out

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        """`a` as a C-contiguous array of this backend; a copy only if one is needed."""
        return self.xp.ascontiguousarray(self.xp.asarray(a, dtype=dtype))

    def to_numpy(self, a: Array) -> np.ndarray:
        """`a` on the host; on the CPU it may be a view."""
        return np.asarray(a)

    def synchronize(self) -> None:
        """Wait until every kernel that was launched has ended."""

    def scope(self) -> AbstractContextManager[Any]:
        """`with backend.scope():` runs plain xp code on the backend's device, if there are several.

        On the CPU, results that are too small become 0 inside, even if `np.seterr` makes underflow
        an error: exp(-1000) is 0 in every softmax.
        """
        return np.errstate(under="ignore")

    # --- steps ------------------------------------------------------------------------------------

    def stream(self) -> AbstractContextManager[Any]:
        """`with backend.stream():` is `scope` for long or captured work, e.g. training.

        Work inside the block begins after everything that was launched before it, and ends before
        everything that is launched after it.
        """
        return self.scope()

    def capture(self, fn: Callable[[], Any], failed: Callable[[str], None] | None = None,
                agree: Callable[[str], str] | None = None) -> Callable[[], Any]:
        """A function that does the same as fn(); on a GPU, after a few calls, in one launch.

        It returns what fn() returned; the next call may overwrite that. fn must read and write
        arrays that keep their addresses, and read everything that changes from call to call from
        such arrays. If fn cannot be captured, failed(reason) is called, and the function calls fn
        each time. Ranks that exchange arrays in fn must all capture it or none: agree(reason), or
        agree("") after a success, is called once and returns the reason why one of them cannot, or
        "" if all can.
        """
        return fn

    def assign(self, out: Array, values: Sequence[float]) -> None:
        """out[i] = values[i], a few numbers of the host to out (n,) float64, without waiting."""
        out[...] = self.asarray(np.array(values, np.float64))

    def advance(self, steps: Array, position: Array | None = None, samples: int = 0) -> None:
        """steps += 1 and position += samples, counters (1,) in uint64 and int64.

        A captured step moves them itself: what follows from them is read from memory.
        """
        steps += steps.dtype.type(1)
        if position is not None:
            position += position.dtype.type(samples)

    # --- batches ----------------------------------------------------------------------------------

    def gather_batch(self, samples: Array, index: Array | None, dtype: Any) -> Array:
        """A batch-last batch of batch-first samples: out[..., n] = samples[index[n]].

        Args:
            samples: (S, ...) of any real dtype, on the host or on the backend.
            index: (N,) int64 from 0 to S - 1; None for all samples in order, and then the result
                may be a view.
            dtype: of the result, (..., N).
        """
        # select on the host if the samples are there: fewer bytes are copied
        rows = samples if index is None else samples[index]
        return self.xp.ascontiguousarray(self.xp.moveaxis(self.asarray(rows), 0, -1), dtype=dtype)

    def take_columns(self, m: Array, index: Array) -> Array:
        """out (rows, P) = m[:, index], for m (rows, S), and index (P,) int64 from 0 to S - 1."""
        return self.xp.take(m, index, axis=1)

    def put_columns(self, m: Array, index: Array, columns: int) -> Array:
        """out (rows, columns), 0 but for out[:, index] = m, for m (rows, P), and index (P,) int64
        from 0 to columns - 1, no two the same."""
        out = self.zeros((len(m), columns), m.dtype)
        out[:, index] = m
        return out

    def feed(self, samples: Array, dtype: Any, most: int) -> Feed:
        """A batch source with batches of up to `most` of these batch-first samples.

        It keeps the samples in the memory from which it can make batches fastest.
        """
        return Feed(self, samples, dtype)

    def collector(self) -> Collector:
        """Takes results to the host, while the next ones are computed."""
        return Collector(self)

    # --- matrices ---------------------------------------------------------------------------------

    gemm = product.gemm
    products = product.products
    sums_by_token = product.sums_by_token

    def store(self, value: Array, out: Array | None, accumulate: bool = False) -> Array:
        """`value` itself if `out` is None; else out = value, or out += value with accumulate."""
        if out is None:
            return value
        out[...] = out + value if accumulate else value
        return out

    def joined(self, parts: Sequence[Array], axis: int) -> Array:
        """The parts one after another along an axis, in a new array of the first one's dtype.

        They are written slice by slice. CuPy's `concatenate` and `stack` of more than eight arrays
        copy a table of addresses from the host, which cannot be captured.
        """
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        out, start = self.empty(tuple(shape), parts[0].dtype), 0
        for part in parts:
            stop = start + part.shape[axis]
            out[(slice(None),) * axis + (slice(start, stop),)] = part
            start = stop
        return out

    def _is_direct(self, out: Array | None, dtype: Any, *reads: Array | None) -> bool:
        """Whether a kernel may write its result straight into `out`.

        That is: `out` is an array of this dtype, contiguous, and shares no memory with the arrays
        that are still to be read.
        """
        return (out is not None and out.dtype == dtype and bool(out.flags.c_contiguous)
                and not any(self._overlap(out, a) for a in reads if a is not None))

    def _overlap(self, a: Array, b: Array) -> bool:
        """Whether two contiguous arrays may share memory."""
        return np.may_share_memory(a, b)

    # --- convolution and pooling ------------------------------------------------------------------

    im2col = conv.im2col
    col2im = conv.col2im
    conv2d = conv.conv2d
    conv2d_dx = conv.conv2d_dx
    conv2d_dW = conv.conv2d_dW
    max_pool2d = pool.max_pool2d
    max_pool2d_dx = pool.max_pool2d_dx
    avg_pool2d = pool.avg_pool2d
    avg_pool2d_dx = pool.avg_pool2d_dx

    _window_weight = pool.window_weight
    _padded_zeros = conv.padded_zeros
    _pad = conv.pad
    _crop = conv.crop

    @staticmethod
    def argmax_dtype(window: Window) -> np.dtype:
        """The type in which max pooling stores the position of the maximum in its window."""
        return np.dtype(np.uint8 if window.taps <= 255 else np.int32)

    # --- elementwise ------------------------------------------------------------------------------

    def activate(self, z: Array, activation: str | None, constants: tuple[float, ...] = ()
                 ) -> Array:
        """y = f(z); z itself if `activation` is None.

        Args:
            activation: a name in activations.py, or None.
            constants: the activation's constants; empty for the defaults of the table.
        """
        return z if activation is None else activations.forward(self.xp, z, activation, constants)

    def add(self, a: Array, b: Array, activation: str | None = None) -> Array:
        """y = f(a + b), of two arrays of one shape and type; f as in `activate`."""
        return self.activate(a + b, activation)

    def activation_backward(self, dy: Array, y: Array, activation: str | None,
                            constants: tuple[float, ...] = (), *, bias_grad: Array | None = None,
                            accumulate: bool = False) -> Array:
        """dz = dy * f'(z), and bias_grad (rows,) = the sum of dz over all axes but the first.

        Args:
            y: the output f(z); the input z if the activation's derivative is written with it (`of`
                is "z" in activations.py).
            bias_grad: an array for the sums, or None. With accumulate they are added to it.

        Without an activation dz is dy itself.
        """
        dz = (dy if activation is None
              else dy * activations.derivative(self.xp, y, activation, constants))
        if bias_grad is not None:
            self.store(dz.reshape(dz.shape[0], -1).sum(axis=1), bias_grad, accumulate)
        return dz

    # --- normalisation ----------------------------------------------------------------------------

    batch_norm = normalization.batch_norm
    batch_norm_inference = normalization.batch_norm_inference
    batch_norm_backward = normalization.batch_norm_backward
    update_running = normalization.update_running

    # --- softmax ----------------------------------------------------------------------------------

    def softmax(self, z: Array) -> Array:
        """exp(z_k) / sum over k of exp(z_k), over the first axis. The maximum is subtracted from z,
        so that exp does not overflow."""
        e = self.xp.exp(z - z.max(axis=0))
        return e / e.sum(axis=0)

    def softmax_dx(self, dy: Array, y: Array) -> Array:
        """dz = y (dy - sum over k of dy y)."""
        return y * (dy - (dy * y).sum(axis=0))

    def softmax_cross_entropy(self, z: Array, target: Array) -> tuple[Array, Array]:
        """The mean over the batch of -sum over k of t_k log softmax(z)_k, and its gradient.

        z (K, N), target labels (N,) of an integer type or class probabilities t (K, N) -> loss (),
        dz (K, N), which is (softmax(z) sum(t) - t) / N. Here 0 times anything is 0: a class may
        have the logit -infinity if its probability is 0, and a sample whose probabilities are all 0
        adds nothing to the loss and has a gradient of 0, whatever its logits are.
        """
        K, N = z.shape
        if target.ndim == 1:
            target = (self.xp.arange(K)[:, None] == target).astype(z.dtype)  # one-hot (K, N)
        with np.errstate(invalid="ignore"):     # infinity - infinity, which may have the weight 0
            shifted = z - z.max(axis=0)
        e = self.xp.exp(shifted)
        total, weight = e.sum(axis=0), target.sum(axis=0)  # (N,)
        loss = -weighed(self.xp, target, shifted - self.xp.log(total)).sum() / N
        return loss, (weighed(self.xp, weight, e / total) - target) / N

    def tally(self, sums: Array, loss: Array, y: Array, target: Array | None) -> None:
        """sums += (N loss, hits, N): the mean loss of a batch, and how many predictions are right.

        A prediction is the largest of the outputs y (K, N). target is labels (N,), or class
        probabilities (K, N), of which the largest counts. If it is None, hits are not counted and y
        may have any shape (..., N). sums (3,) float64.
        """
        N = y.shape[-1]
        sums[:1] += loss.astype(np.float64) * N
        if target is not None:
            labels = target if target.ndim == 1 else self.argmax(target, 0)
            sums[1] += (self.argmax(y, 0) == labels).sum()
        sums[2] += N

    def argmax(self, x: Array, axis: int) -> Array:
        """Index of the largest element along an axis (int64): of equal ones the first. A NaN is
        larger than every number."""
        return x.argmax(axis=axis)

    # --- recurrent layers -------------------------------------------------------------------------

    scan = recurrent.scan
    scan_backward = recurrent.scan_backward
    scan_product = recurrent.scan_product
    scan_product_backward = recurrent.scan_product_backward

    # --- dropout ----------------------------------------------------------------------------------

    def random_bits(self, n: int, key: tuple[int, int], counter: Array) -> Array:
        """n random 32-bit words (uint32), the same on every backend.

        NumPy's Philox 4x64 with 10 rounds (Salmon et al. 2011), started at the counter
        (0, 0, counter[0], counter[1]), the low half of each 64-bit word first.
        """
        step, use = (int(c) for c in self.to_numpy(counter))
        words = np.random.Philox(
            key=np.array(key, np.uint64),
            counter=np.array([0, 0, step, use], np.uint64)).random_raw((n + 1) // 2)
        return self.asarray(words.astype("<u8", copy=False).view("<u4")[:n])

    def dropout(self, x: Array, p: float, key: tuple[int, int],
                counter: Array) -> tuple[Array, Array]:
        """y = x keep / (1 - p), keep = bits >= round(p 2^32) (Srivastava et al. 2014).

        Element i in C order uses word i of random_bits(key, counter): key = (seed, layer), counter
        (2,) uint64 = (step, use) on the backend. Returns y and keep (bool), both like x.
        """
        keep = (self.random_bits(x.size, key, counter) >= round(p * 2.0**32)).reshape(x.shape)
        return self.dropout_dx(x, p, keep), keep

    def dropout_dx(self, dy: Array, p: float, keep: Array) -> Array:
        """dx = dy keep / (1 - p); a dropped NaN or infinity is 0."""
        return self.xp.where(keep, dy * (1.0 / (1.0 - p)), dy.dtype.type(0))

    # --- optimizers -------------------------------------------------------------------------------

    def update(self, rule: str, w: Array, g: Array, slots: Sequence[Array | None], hyper: Array, *,
               decayed: int) -> None:
        """One step of an optimizer: changes the weights w (n,) and the slots, each (n,), in place.

        Args:
            rule: a name in rules.RULES.
            g: the gradients (n,).
            slots: the arrays that the rule keeps between steps; None for one that is not used.
            hyper: the hyper-parameters of the rule, (h,) float64 on the backend.
            decayed: weight decay applies to the first `decayed` weights.
        """
        rule_for(rule, slots, hyper).apply(self.xp, w, g, *slots, hyper, decayed)
