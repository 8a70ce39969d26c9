"""The backend contract, and a reference implementation of every kernel in plain array code.

A backend has the array module `xp` and the operations that array modules lack or are slow at. The
methods here are the definition: short, with the formula visible, correct on any array module. A
subclass overrides what can be faster on its machine, and must agree with this file.

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
from xpnet.backends.cells import cell_of, in_order
from xpnet.backends.feed import Collector, Feed
from xpnet.backends.rules import rule_for
from xpnet.backends.window import Window

Array = Any


def weighed(xp: Any, weight: Array, value: Array) -> Array:
    """weight * value, where 0 times anything is 0, also 0 times an infinity or a NaN."""
    return weight * xp.where(weight != 0, value, 0.0)


ONE_HOT = 1 << 24           # elements of the largest one-hot matrix


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

    def capture(self, fn: Callable[[], Any], failed: Callable[[str], None] | None = None
                ) -> Callable[[], Any]:
        """A function that does the same as fn(); on a GPU, after a few calls, in one launch.

        It returns what fn() returned; the next call may overwrite that. fn must read and write
        arrays that keep their addresses, and read everything that changes from call to call from
        such arrays. If fn cannot be captured, failed(reason) is called, and the function calls fn
        each time.
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

    def feed(self, samples: Array, dtype: Any, most: int) -> Feed:
        """A batch source with batches of up to `most` of these batch-first samples.

        It keeps the samples in the memory from which it can make batches fastest.
        """
        return Feed(self, samples, dtype)

    def collector(self) -> Collector:
        """Takes results to the host, while the next ones are computed."""
        return Collector(self)

    # --- matrices ---------------------------------------------------------------------------------

    def gemm(self, a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False,
             bias: Array | None = None, activation: str | None = None, out: Array | None = None,
             accumulate: bool = False) -> Array:
        """A matrix product, y = f(op(a) op(b) + bias).

        Args:
            a, b: op(a) is (M, K), op(b) is (K, N), where op transposes if trans_a or trans_b.
            bias: (M,), or None.
            activation: the name of f, or None.
            out: an array (M, N) for the result; None for a new one.
            accumulate: whether to add to `out` instead: out += y.
        """
        product = self.xp.matmul(a.T if trans_a else a, b.T if trans_b else b)
        if bias is not None:
            product += bias[:, None]
        if activation is not None:
            product = self.activate(product, activation)
        return self.store(product, out, accumulate)

    def products(self, a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False
                 ) -> Array:
        """G matrix products, y[g] = op(a[g]) op(b[g]).

        Args:
            a, b: (G, ., .); op(a[g]) is (M, K), op(b[g]) is (K, N), where op transposes if trans_a
                or trans_b. y (G, M, N).
        """
        return self.xp.matmul(a.transpose(0, 2, 1) if trans_a else a,
                              b.transpose(0, 2, 1) if trans_b else b)

    def sums_by_token(self, dy: Array, tokens: Array, *, out: Array, accumulate: bool = False
                      ) -> None:
        """out[v] = the sum of the columns dy[:, p] with tokens[p] = v, the gradient of rows that
        were selected by tokens; added to `out` with accumulate.

        It is the product of one-hot rows with dy^T, some tokens at a time: nothing is scattered.

        Args:
            dy: (D, P).
            tokens: (P,) int64, from 0 to V - 1.
            out: (V, D).
        """
        rows = max(1, ONE_HOT // len(tokens))
        for start in range(0, len(out), rows):
            some = self.xp.arange(start, min(start + rows, len(out)))
            one_hot = (some[:, None] == tokens).astype(dy.dtype)            # (rows, P)
            self.gemm(one_hot, dy, trans_b=True, out=out[start:start + rows],
                      accumulate=accumulate)

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

    # --- convolution ------------------------------------------------------------------------------

    def im2col(self, x: Array, window: Window) -> Array:
        """Every window as a column: x (C, H, W, N) -> cols (C*KH*KW, OH*OW*N).

        Taps on padding give 0. For windows of one element the result may be a view of x.
        """
        C, H, W, N = x.shape
        if window.pointwise:
            return x.reshape(C, H * W * N)
        OH, OW = window.output_size(H, W)
        KH, KW = window.kernel
        padded = self._pad(x, window)
        cols = self.empty((C, KH, KW, OH, OW, N), x.dtype)
        for i in range(KH):
            for j in range(KW):
                rows, columns = window.tap(i, j, (OH, OW))
                cols[:, i, j] = padded[:, rows, columns]
        return cols.reshape(C * KH * KW, OH * OW * N)

    def col2im(self, cols: Array, x_shape: tuple[int, ...], window: Window) -> Array:
        """The adjoint of im2col: cols (C*KH*KW, OH*OW*N) -> (C, H, W, N).

        Each element is the sum, in tap order, of the entries that im2col would read from it.
        """
        C, H, W, N = x_shape
        if window.pointwise:
            return cols.reshape(x_shape).copy()
        OH, OW = window.output_size(H, W)
        KH, KW = window.kernel
        cols = cols.reshape(C, KH, KW, OH, OW, N)
        padded = self._padded_zeros(x_shape, window, cols.dtype)
        for i in range(KH):
            for j in range(KW):
                rows, columns = window.tap(i, j, (OH, OW))
                padded[:, rows, columns] += cols[:, i, j]
        return self._crop(padded, x_shape, window)

    def conv2d(self, x: Array, W: Array, window: Window, *, groups: int = 1,
               bias: Array | None = None, activation: str | None = None) -> Array:
        """Cross-correlation.

        y[f, oy, ox] = g(bias[f] + sum over c, i, j of W[f, c, i, j] x[c, iy, ix])

        x (C, H, W, N), W (F, C/groups, KH, KW), bias (F,) -> y (F, OH, OW, N); iy and ix as in
        Window, g the activation.
        """
        F, K = W.shape[0], W.shape[1] * window.taps
        OH, OW = window.output_size(*x.shape[1:3])
        cols = self.im2col(x, window)  # (C*KH*KW, P)
        if groups == 1:
            y = self.gemm(W.reshape(F, K), cols, bias=bias, activation=activation)  # (F, P)
        else:
            y = self.xp.matmul(W.reshape(groups, F // groups, K),
                               cols.reshape(groups, K, -1)).reshape(F, -1)
            if bias is not None:
                y += bias[:, None]
            y = self.activate(y, activation)
        return y.reshape(F, OH, OW, x.shape[3])

    def conv2d_dx(self, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window, *,
                  groups: int = 1) -> Array:
        """The input gradient of conv2d: dcols = W^T dy, dx = col2im(dcols).

        dy (F, OH, OW, N), W (F, C/groups, KH, KW) -> dx (C, H, W, N).
        """
        F, K = W.shape[0], W.shape[1] * window.taps
        dy = dy.reshape(groups, F // groups, -1)  # (G, F/G, P)
        W = W.reshape(groups, F // groups, K)
        dcols = self.xp.matmul(W.transpose(0, 2, 1), dy)  # (G, K, P)
        return self.col2im(dcols.reshape(groups * K, -1), x_shape, window)

    def conv2d_dW(self, x: Array, dy: Array, window: Window, *, groups: int = 1,
                  out: Array | None = None, accumulate: bool = False) -> Array:
        """The filter gradient of conv2d: dW = dy im2col(x)^T.

        x (C, H, W, N), dy (F, OH, OW, N) -> dW (F, C/groups, KH, KW); `out` and `accumulate` as in
        gemm.
        """
        F, K = dy.shape[0], x.shape[0] // groups * window.taps
        cols = self.im2col(x, window).reshape(groups, K, -1)  # (G, K, P)
        # (G, F/G, K)
        dW = self.xp.matmul(dy.reshape(groups, F // groups, -1), cols.transpose(0, 2, 1))
        return self.store(dW.reshape(F, x.shape[0] // groups, *window.kernel), out, accumulate)

    # --- pooling ----------------------------------------------------------------------------------

    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Array]:
        """The largest element of each window and its index, x (C, H, W, N) -> both (C, OH, OW, N).

        The index is i * KW + j inside the window, uint8 up to 255 taps, else int32. The first of
        equal values wins, a NaN wins over everything, padding never wins.
        """
        C, H, W, N = x.shape
        OH, OW = window.output_size(H, W)
        KH, KW = window.kernel
        xp = self.xp
        padded = self._pad(x, window, -np.inf)
        y = self.empty((C, OH, OW, N), x.dtype)
        y.fill(-np.inf)
        # the first tap that is not on padding
        first_row, first_column = (inside.argmax(axis=1) for inside in window.inside(H, W))
        # (OH, OW)
        first = (first_row[:, None] * KW + first_column).astype(self.argmax_dtype(window))
        argmax = self.empty(y.shape, first.dtype)
        argmax[...] = self.asarray(first)[:, :, None]
        for i in range(KH):
            for j in range(KW):
                rows, columns = window.tap(i, j, (OH, OW))
                candidate = padded[:, rows, columns]
                wins = (candidate > y) | (xp.isnan(candidate) & ~xp.isnan(y))
                y[...] = xp.where(wins, candidate, y)
                argmax[...] = xp.where(wins, argmax.dtype.type(i * KW + j), argmax)
        return y, argmax

    @staticmethod
    def argmax_dtype(window: Window) -> np.dtype:
        return np.dtype(np.uint8 if window.taps <= 255 else np.int32)

    def max_pool2d_dx(self, dy: Array, argmax: Array, x_shape: tuple[int, ...],
                      window: Window) -> Array:
        """The input gradient of max_pool2d: each dy goes to the element that won, in tap order.

        dy, argmax (C, OH, OW, N) -> (C, H, W, N).
        """
        OH, OW = dy.shape[1:3]
        KH, KW = window.kernel
        padded = self._padded_zeros(x_shape, window, dy.dtype)
        for i in range(KH):
            for j in range(KW):
                rows, columns = window.tap(i, j, (OH, OW))
                padded[:, rows, columns] += self.xp.where(
                    argmax == i * KW + j, dy, dy.dtype.type(0))
        return self._crop(padded, x_shape, window)

    def avg_pool2d(self, x: Array, window: Window, *, count_padding: bool = True) -> Array:
        """The mean of each window, x (C, H, W, N) -> (C, OH, OW, N).

        Without count_padding it is the mean of the elements inside x.
        """
        OH, OW = window.output_size(*x.shape[1:3])
        padded = self._pad(x, window)
        y = self.zeros((x.shape[0], OH, OW, x.shape[3]), x.dtype)
        for i in range(window.kernel[0]):
            for j in range(window.kernel[1]):
                rows, columns = window.tap(i, j, (OH, OW))
                y += padded[:, rows, columns]
        y *= self._window_weight(x.shape, window, count_padding, x.dtype)
        return y

    def avg_pool2d_dx(self, dy: Array, x_shape: tuple[int, ...], window: Window, *,
                      count_padding: bool = True) -> Array:
        """The input gradient of avg_pool2d: the elements of a window share its dy equally.

        dy (C, OH, OW, N) -> (C, H, W, N).
        """
        OH, OW = dy.shape[1:3]
        share = dy * self._window_weight(x_shape, window, count_padding, dy.dtype)
        padded = self._padded_zeros(x_shape, window, dy.dtype)
        for i in range(window.kernel[0]):
            for j in range(window.kernel[1]):
                rows, columns = window.tap(i, j, (OH, OW))
                padded[:, rows, columns] += share
        return self._crop(padded, x_shape, window)

    def _window_weight(self, x_shape: tuple[int, ...], window: Window, count_padding: bool,
                       dtype: Any) -> Array:
        """1 / number of elements that a mean counts: a Python float, or (OH, OW, 1)."""
        if count_padding:
            return 1.0 / window.taps
        rows, columns = (inside.sum(axis=1) for inside in window.inside(*x_shape[1:3]))
        return self.asarray(1.0 / np.outer(rows, columns), dtype)[:, :, None]

    def _padded_zeros(self, x_shape: tuple[int, ...], window: Window, dtype: Any) -> Array:
        C, H, W, N = x_shape
        top, bottom, left, right = window.padding
        return self.zeros((C, H + top + bottom, W + left + right, N), dtype)

    def _pad(self, x: Array, window: Window, value: float = 0.0) -> Array:
        """x (C, H, W, N) with a border of `value`; x itself if the window has no padding."""
        if not window.padded:
            return x
        padded = self._padded_zeros(x.shape, window, x.dtype)
        if value != 0:
            padded.fill(value)
        top, _, left, _ = window.padding
        padded[:, top:top + x.shape[1], left:left + x.shape[2]] = x
        return padded

    def _crop(self, padded: Array, x_shape: tuple[int, ...], window: Window) -> Array:
        top, _, left, _ = window.padding
        return self.xp.ascontiguousarray(padded[:, top:top + x_shape[1], left:left + x_shape[2]])

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

    def batch_norm(self, x: Array, gamma: Array, beta: Array, eps: float, *,
                   activation: str | None = None
                   ) -> tuple[Array, Array, Array]:
        """y = f(gamma (x - mean) / sqrt(var + eps) + beta) with the batch's statistics.

        x (C, ..., N), gamma and beta (C,) -> y like x, mean (C,), var (C,), the variance with
        divisor n (Ioffe and Szegedy 2015). The mean of equal elements has the same bits as these
        elements, so that a constant channel becomes beta: a rounding error of the mean would be
        divided by the standard deviation, which is 0 there.
        """
        rows = x.reshape(x.shape[0], -1)
        mean = rows.mean(axis=1)
        rest = (rows - mean[:, None]).mean(axis=1)  # it is small, and so are its rounding errors
        mean = mean + self.xp.where(self.xp.isfinite(rest), rest, rest.dtype.type(0))
        centred = rows - mean[:, None]
        var = (centred * centred).mean(axis=1)
        return self.batch_norm_inference(x, gamma, beta, mean, var, eps,
                                         activation=activation), mean, var

    def batch_norm_inference(self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array,
                             eps: float, *, activation: str | None = None) -> Array:
        """batch_norm with given statistics mean and var, both (C,)."""
        rows = x.reshape(x.shape[0], -1)
        scale = gamma / self.xp.sqrt(var + eps)  # (C,)
        y = (rows - mean[:, None]) * scale[:, None] + beta[:, None]
        return self.activate(y, activation).reshape(x.shape)

    def batch_norm_backward(self, dy: Array, x: Array, y: Array, gamma: Array, mean: Array,
                            var: Array, eps: float, *, activation: str | None = None,
                            gamma_grad: Array, beta_grad: Array, accumulate: bool = False) -> Array:
        """The gradient of batch_norm, with x_hat = (x - mean) / std, dz = dy f'(y), n = x.size / C:

            dgamma = sum dz x_hat,  dbeta = sum dz
            dx = gamma / std * (dz - dbeta / n - x_hat dgamma / n)

        Returns dx; dgamma and dbeta go to gamma_grad and beta_grad (C,), added with accumulate.
        """
        dz = self.activation_backward(dy, y, activation).reshape(x.shape[0], -1)
        std = self.xp.sqrt(var + eps)
        x_hat = (x.reshape(dz.shape) - mean[:, None]) / std[:, None]
        dgamma = (dz * x_hat).sum(axis=1)
        dbeta = dz.sum(axis=1)
        self.store(dgamma, gamma_grad, accumulate)
        self.store(dbeta, beta_grad, accumulate)
        n = dz.shape[1]
        dx = (gamma / std)[:, None] * (dz - (dbeta / n)[:, None] - x_hat * (dgamma / n)[:, None])
        return dx.reshape(x.shape)

    def update_running(self, running_mean: Array, running_var: Array, mean: Array, var: Array,
                       momentum: float, n: int) -> None:
        """running += momentum (batch's - running), with the unbiased variance var n / (n - 1).

        All arrays are (C,), for n elements each. If momentum times the difference is too small to
        change the running mean, the mean moves by one unit in its last place. Otherwise it would
        never reach the mean of a constant channel: it would stop 5 of these units away, while the
        running variance goes to 0.
        """
        moved = running_mean + momentum * (mean - running_mean)
        if momentum > 0:
            moved = self.xp.where(moved == running_mean, self.xp.nextafter(running_mean, mean),
                                  moved)
        running_mean[...] = moved
        running_var += momentum * (var * (n / (n - 1)) - running_var)

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
            labels = target if target.ndim == 1 else target.argmax(axis=0)
            sums[1] += (y.argmax(axis=0) == labels).sum()
        sums[2] += N

    # --- recurrent layers -------------------------------------------------------------------------

    def scan(self, cell: str, a: Array, U: Array, states: Sequence[Array], counts: Sequence[int], *,
             bias: Array | None = None, reverse: bool = False, lengths: Array | None = None,
             keep: bool = True) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
        """All steps of a recurrent layer: s = U h, and from a, s and the states those after a step.

        Returns h of all steps (H, P), the states after the last step of each sample, and with
        `keep` what scan_backward needs: the states before each step (H, P), and the arrays of the
        cell.

        Args:
            cell: a name in cells.py, where the equations of a step are, or that of an activation.
            a: (gates H, P), the part of the input and of b. Step 0 has the first counts[0] columns,
                step 1 the next counts[1], and so on.
            U: (gates H, H).
            states: those before the first step, (H, N) each, h first.
            counts: the number of samples in each step; they are the first ones of the N, and never
                more than in the step before. Samples that are not in a step keep their states.
            bias: of the cell, (H,), or None.
            reverse: from the last step to the first one.
            lengths: (1, N), steps of each sample, if the host cannot know them: all samples are
                then in all steps, and a mask keeps the states that are beyond the end. h is 0
                there.
        """
        rules, H, P = cell_of(cell), U.shape[1], a.shape[1]
        states = [state.copy() for state in states]
        h = self.empty((H, P), a.dtype)
        kept = [self.empty((rows * H, P), a.dtype)
                for rows in (*(1 for _ in states), *rules.kept)] if keep else []
        for t, columns, count in in_order(counts, reverse):
            before = [state[:, :count] for state in states]
            s = self.gemm(U, before[0])                                 # (gates H, count)
            after, needed = rules.forward(self, a[:, columns], s, bias, *before)
            if lengths is None:
                h[:, columns] = after[0]
            else:
                h[:, columns] = self.xp.where(t < lengths, after[0], a.dtype.type(0))
                after = tuple(self.xp.where(t < lengths, new, old)
                              for new, old in zip(after, before, strict=True))
            for array, part in zip(kept, (*before, *needed)):
                array[:, columns] = part
            for state, new in zip(before, after, strict=True):
                state[...] = new
        return h, tuple(states), tuple(kept)

    def scan_backward(self, cell: str, dy: Array | None, dstates: Sequence[Array], U: Array,
                      kept: Sequence[Array], counts: Sequence[int], *, reverse: bool = False,
                      lengths: Array | None = None
                      ) -> tuple[Array, Array, tuple[Array, ...]]:
        """The gradients of `scan`: da and ds (gates H, P), and those with respect to the states
        before the first step.

        dW = da x^T, dU = ds h^T with h of the step before, dx = W^T da. Both are one array if they
        are equal.

        Args:
            dy: with respect to h of all steps (H, P), or None for 0. With `lengths`, it must be 0
                beyond the end of a sample; da and ds are 0 there.
            dstates: with respect to the states after the last step of each sample, (H, N) each.
            kept: what scan returned. The other arguments are those of scan.
        """
        rules, P = cell_of(cell), kept[0].shape[1]
        dstates = [d.copy() for d in dstates]
        da = self.empty((len(U), P), U.dtype)
        ds = self.empty(da.shape, U.dtype) if rules.split else da
        for t, columns, count in reversed(in_order(counts, reverse)):
            places = [d[:, :count] for d in dstates]
            d = places if dy is None else [dy[:, columns] + places[0], *places[1:]]
            da_t, ds_t, (dh, *others) = rules.backward(
                self, *d, *(array[:, columns] for array in kept))
            if lengths is not None:             # beyond the end the states pass unchanged
                da_t, ds_t = (self.xp.where(t < lengths, part, U.dtype.type(0))
                              for part in (da_t, ds_t))
            da[:, columns] = da_t
            if rules.split:
                ds[:, columns] = ds_t
            before = [dh + self.gemm(U, ds_t, trans_a=True), *others]
            for k, place in enumerate(places):
                place[...] = (before[k] if lengths is None else
                              self.xp.where(t < lengths, before[k], d[k]))
        return da, ds, tuple(dstates)

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
