"""The store of additional negative samples, which feeds whole blocks of training steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gru4rec_toolkit.errors import InputError, shown
from gru4rec_toolkit.ops import library
from gru4rec_toolkit.ops.sampling.op import NegativeSampler, merge_in_c, merge_in_numpy
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano


def expected_distinct(support: np.ndarray, alpha: float, n_sample: int) -> float:
    """Estimate how many of `n_sample` negatives differ, drawn with probability support^alpha."""
    weights = np.asarray(support, dtype=np.float64) ** alpha
    with np.errstate(divide="ignore"):  # a single item is always drawn
        return float(-np.expm1(n_sample * np.log1p(-weights / weights.sum())).sum())


def checked(draw: Callable[[int], np.ndarray], n_sample: int, n_items: int) -> Callable:
    """Return a user's function that draws negatives, with a check of what it returns.

    Parameters
    ----------
    draw : callable
        As `SampleStore` takes it.
    n_sample, n_items : int
        The shape and the range of the indices that are expected.
    """

    def draw_and_check(n_batches: int) -> np.ndarray:
        drawn = draw(n_batches)
        shape = (n_batches, n_sample)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy's of rows of different lengths
                found = np.asarray(drawn)
        except ValueError:  # rows of different lengths
            found = np.empty(0, dtype=object)
        if found.shape != shape or found.dtype.kind not in "iuf":
            got = "nothing"
            if drawn is not None:
                got = f"{shown(drawn, 60)} (shape {found.shape}, {found.dtype})"
        elif (
            # every comparison with NaN is false
            found.min() >= 0
            and found.max() < n_items
            and (found.dtype.kind != "f" or not (found % 1).any())
        ):
            return found.astype(np.int32, copy=False)
        else:
            fine = (found >= 0) & (found < n_items) & (found % 1 == 0)
            got = f"the index {found[~fine][0]}"
        raise InputError(
            f"negative_sampler: expected an array of integers of shape {shape}, (n_batches, "
            f"n_sample), with item indices from 0 to {n_items - 1}, got {got}"
        )

    return draw_and_check


class SampleStore:
    """Source of a compiled training step's negatives, wherever they are stored.

    Parameters
    ----------
    draw : callable
        ``draw(n_batches)`` returns int (n_batches, n_sample). One that has the method
        ``draw_on_device`` as well (`ops.sampling.gpu.GpuSampler`) fills a store on the device.
    n_sample : int
    n_ids : int
        How many ids the store holds. Fewer than ``n_sample``: there is no store, and each block of
        steps draws its own.
    on_device : bool
        True: the whole store lies in a Theano shared variable, on a GPU in its memory. False: it
        lies in host memory, and each block of steps gets a part of it.
    merge : bool
        List a mini-batch's equal negatives once, with the number of copies: the step is the same,
        with fewer columns of the score matrix.

    Attributes
    ----------
    samples : shared int32 (rows, n_sample)
        Negatives ready for use.
    copies : shared float32 (rows, n_sample), n_distinct : shared int64 (rows,) in host memory
        With ``merge``: only the first n_distinct[row] negatives of a row count, each copies times.
    row : shared int64 scalar
        The row that the next step uses; the step increments it.
    n_batches : int
        Capacity in mini-batches; 0 without a store.
    n_served : int
        Mini-batches that were served.
    """

    def __init__(
        self,
        draw: Callable[[int], np.ndarray],
        n_sample: int,
        n_ids: int,
        on_device: bool = True,
        merge: bool = False,
    ) -> None:
        self._draw, self._merge = draw, merge
        self._n_sample = n_sample
        self.n_batches = n_ids // n_sample
        self.on_device = on_device and self.n_batches > 0
        self._memory = np.empty((0, n_sample if merge else 0), dtype=np.float32)
        self._held: _Rows | None = None
        self._used = 0
        self.n_served = 0
        self.samples = theano.shared(np.empty((0, n_sample), dtype=np.int32), name="negatives")
        self.copies = theano.shared(np.empty((0, n_sample), dtype=np.float32), name="copies")
        # on the host, so that taking part of a row needs nothing from the device
        nothing = np.empty(0, dtype=np.int64)
        self.n_distinct = theano.shared(nothing, name="n_distinct", target="cpu")
        self.n_distinct.tag.target = "cpu"
        self.row = theano.shared(np.int64(0), name="negative_row")

    def negatives(self, after: int = 0) -> tuple[tt.TensorVariable, tt.TensorVariable | None]:
        """Return ids (K,) and copies (K,), None if nothing is merged, so many rows after `row`."""
        row = self.row + after if after else self.row
        if not self._merge:
            return self.samples[row], None
        n = self.n_distinct[row]
        return self.samples[row, :n], self.copies[row, :n]

    def serve(self, n_steps: int, n_steps_left: int, window: int = 1) -> int:
        """Make negatives ready for up to ``n_steps`` steps; return for how many.

        Parameters
        ----------
        n_steps : int
        n_steps_left : int
            How many the whole training may still take, so that a short training does not draw ids
            that it will never use.
        window : int
            If there are fewer, there are a multiple of so many, at least one.
        """
        n_served = self._serve(n_steps, n_steps_left, window)
        self.n_served += n_served
        return n_served

    def skip(self, n_batches: int) -> None:
        """Go on as if so many mini-batches were served; the Op's draws follow from their number."""
        self._draw.skip(n_batches)  # type: ignore[attr-defined]
        self._held, self._used, self.n_served = None, 0, n_batches

    def _serve(self, n_steps: int, n_steps_left: int, window: int) -> int:
        if self.n_batches == 0:
            self._upload(self._fresh(n_steps))
            return n_steps
        held = 0 if self._held is None else len(self._held.ids) - self._used
        if self._held is None or held < min(n_steps, window):
            n_batches = max(n_steps, min(self.n_batches, n_steps_left))
            self._held, self._used = self._refilled(held, n_batches), 0
            held = len(self._held.ids)
            if self.on_device:
                self._upload(self._held)
        n_served = n_steps if n_steps <= held else held // window * window
        if not self.on_device:
            self._upload(_Rows(*(a[self._used : self._used + n_served] for a in self._held)))
        self._used += n_served
        return n_served

    def _refilled(self, n_left: int, n_batches: int) -> _Rows:
        """Return so many rows, of which the first are those that are left and not yet used."""
        if n_left == 0 or self._held is None:
            return self._fresh(n_batches)
        if hasattr(self._draw, "skip"):
            # the same again: they follow from their number
            self._draw.skip(self.n_served)
            return self._fresh(n_batches)
        left = [rows[-n_left:].copy() for rows in self._held]  # the memory is used again
        fresh = self._fresh(n_batches - n_left)
        return _Rows(*(np.concatenate(pair) for pair in zip(left, fresh)))

    def _fresh(self, n_batches: int) -> _Rows:
        if self.on_device and hasattr(self._draw, "draw_on_device"):
            return _Rows(*self._draw.draw_on_device(n_batches, self._merge))
        drawn = np.ascontiguousarray(self._draw(n_batches), dtype=np.int32)
        if len(self._memory) < n_batches:  # new memory costs as much time as the merging
            self._memory = np.empty((n_batches, self._memory.shape[1]), dtype=np.float32)
        copies = self._memory[:n_batches]
        n_distinct = np.empty(n_batches, dtype=np.int64)
        if self._merge:
            if not isinstance(self._draw, NegativeSampler):
                drawn = drawn.copy()  # may belong to the caller; do not modify
            merge = merge_in_c if library.usable() else merge_in_numpy
            merge(drawn, copies, n_distinct)
        return _Rows(drawn, copies, n_distinct)

    def _upload(self, rows: _Rows) -> None:
        self.samples.set_value(rows.ids, borrow=True)
        self.copies.set_value(rows.copies, borrow=True)
        self.n_distinct.set_value(rows.n_distinct, borrow=True)
        self.row.set_value(np.int64(0))


class _Rows(NamedTuple):
    """Negatives of mini-batches, as `SampleStore` holds them."""

    ids: np.ndarray
    copies: np.ndarray
    n_distinct: np.ndarray
