"""All steps of a recurrent layer in plain array code, for every cell of cells.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xpnet.backends.cells import cell_of, in_order

if TYPE_CHECKING:
    from xpnet.backends.base import Array, Backend


def scan(self: Backend, cell: str, a: Array, U: Array, states: Sequence[Array],
         counts: Sequence[int], *, bias: Array | None = None, reverse: bool = False,
         lengths: Array | None = None, keep: bool = True
         ) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    """All steps of a recurrent layer: s = U h, and from a, s and the states those after a step.

    Returns h of all steps (H, P), the states after the last step of each sample, and with
    `keep` what scan_backward needs: the states before each step (H, P), and the arrays of the
    cell. These arrays may be transposed views.

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
        s = self.gemm(U, before[0])                                     # (gates H, count)
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


def scan_product(self: Backend, cell: str, x: Array, W: Array, b: Array | None, U: Array,
                 states: Sequence[Array], counts: Sequence[int], *, bias: Array | None = None,
                 reverse: bool = False, lengths: Array | None = None, keep: bool = True
                 ) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    """`scan` of a = W x + b. A backend may compute this product some steps at a time, while it
    computes other steps.

    Args:
        x: (D, P), the inputs of all steps, with the columns of a.
        W: (gates H, D).
        b: (gates H,), or None for 0. The other arguments are those of scan.
    """
    return self.scan(cell, self.gemm(W, x, bias=b), U, states, counts, bias=bias, reverse=reverse,
                     lengths=lengths, keep=keep)


def scan_backward(self: Backend, cell: str, dy: Array | None, dstates: Sequence[Array], U: Array,
                  kept: Sequence[Array], counts: Sequence[int], *, reverse: bool = False,
                  lengths: Array | None = None) -> tuple[Array, Array, tuple[Array, ...]]:
    """The gradients of `scan`: da and ds (gates H, P), and those with respect to the states
    before the first step. da and ds may be transposed views, and are one array if they are equal.

    dW = da x^T, dU = ds h^T with h of the step before, dx = W^T da.

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
        if lengths is not None:                 # beyond the end the states pass unchanged
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


def scan_product_backward(self: Backend, cell: str, dy: Array | None, dstates: Sequence[Array],
                          x: Array, U: Array, kept: Sequence[Array], counts: Sequence[int],
                          dW: Array, dU: Array, *, accumulate: bool = False,
                          reverse: bool = False, lengths: Array | None = None
                          ) -> tuple[Array, Array, tuple[Array, ...]]:
    """The gradients of `scan_product`: what `scan_backward` returns, and in dW and dU those with
    respect to W and U. The one with respect to b is the sum of da over its columns.

    Args:
        x: that of scan_product, (D, P).
        dW, dU: arrays (gates H, D) and (gates H, H) for the gradients; with `accumulate` they are
            added. The other arguments are those of scan_backward.
    """
    da, ds, dstates = self.scan_backward(cell, dy, dstates, U, kept, counts, reverse=reverse,
                                         lengths=lengths)
    self.gemm(da, x, trans_b=True, out=dW, accumulate=accumulate)
    self.gemm(ds, kept[0], trans_b=True, out=dU, accumulate=accumulate)     # h of the step before
    return da, ds, tuple(dstates)
