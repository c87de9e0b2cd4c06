"""Drawing negative samples on a GPU: the same ids as on the CPU, without a way over the bus."""

from __future__ import annotations

import numpy as np

from gru4rec_toolkit.ops import gpu_base
from gru4rec_toolkit.ops.sampling.op import NegativeSampler
from gru4rec_toolkit.theano_setup import pygpu

from theano.gpuarray.type import get_context  # isort: skip



class GpuSampler(NegativeSampler):
    """A `sampling.NegativeSampler` that can draw into the GPU's memory.

    Parameters are those of `sampling.NegativeSampler`, and so are the ids.
    """

    def __init__(self, support: np.ndarray, alpha: float, n_sample: int, seed: int) -> None:
        super().__init__(support, alpha, n_sample, seed)
        self._context = get_context(None)
        self._device_table = [pygpu.gpuarray.array(a, context=self._context) for a in self._table]
        self._kernels = {name: self._compile(name) for name in ("draw", "merge")}

    def _compile(self, name: str) -> pygpu.gpuarray.GpuKernel:
        source, types = gpu_base.kernel_source("sampling", name)
        return pygpu.gpuarray.GpuKernel(source, name, types, context=self._context)

    def _empty(self, shape: tuple, dtype: str) -> pygpu.gpuarray.GpuArray:
        return pygpu.gpuarray.empty(shape, dtype=dtype, context=self._context)

    def draw_on_device(self, n_batches: int, merge: bool) -> tuple:
        """Draw the negatives of ``n_batches`` mini-batches.

        Returns
        -------
        ids : GpuArray int32 (n_batches, n_sample)
        copies : GpuArray float32 of the same shape
            With ``merge``; see `sampling.merge_in_c`. Else without columns.
        n_distinct : array int64 (n_batches,)
            With ``merge``; in host memory.
        """
        shape = (n_batches, self.n_sample)
        ids = self._empty(shape, "int32")
        arrays = [a for array in (*self._device_table, ids) for a in (array, array.offset)]
        n_ids = n_batches * self.n_sample
        draw = [n_ids, self._seed, self._n_drawn, len(self._table[1]), *arrays]
        threads = gpu_base.THREADS
        self._kernels["draw"](*draw, gs=min(-(-n_ids // threads), 65535), ls=threads)
        self._n_drawn += n_ids
        n_distinct = np.empty(n_batches, dtype=np.int64)
        if not merge:
            return ids, self._empty((n_batches, 0), "float32"), n_distinct
        distinct, first = self._empty(shape, "int32"), self._empty(shape, "int32")
        copies, counts = self._empty(shape, "float32"), self._empty((n_batches,), "int64")
        arrays = [a for x in (ids, distinct, copies, counts, first) for a in (x, x.offset)]
        self._kernels["merge"](self.n_sample, *arrays, gs=n_batches, ls=threads)
        return distinct, copies, np.asarray(counts)
