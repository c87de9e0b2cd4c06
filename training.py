"""Training: the compiled step, the variables it works on, and the loop over blocks of steps.

Nothing leaves Theano inside of a block: its schedule is uploaded before, its losses are read after.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

import cpu_ops
import losses
import optimizers
import sampling
import sessions
import theano_setup
from theano_setup import tensor as tt
from theano_setup import theano
from user_errors import InputError

if TYPE_CHECKING:
    from gru4rec import GRU4Rec

logger = logging.getLogger("gru4rec")

# steps whose schedule is uploaded together, some 100 kB; their losses are read at the end
BLOCK_STEPS = 512
# a mini-batch's equal negatives are merged where fewer than this fraction of them are distinct
MERGE_BELOW = 0.98


class TrainingDiverged(InputError):
    """The loss became NaN or infinite."""


def _sampler_class() -> type:
    if theano_setup.configure().device == "cpu":
        return sampling.NegativeSampler
    from gpu_sampling import GpuSampler  # needs pygpu

    return GpuSampler


def progress_bar(n_steps: int, what: str) -> tqdm:
    """Return a bar of mini-batches: in a notebook, else on standard error if it is a terminal."""
    # without ipywidgets a notebook gets the bar of terminals, for which it is none
    disable = False if "ipykernel.zmqshell" in sys.modules else None
    return tqdm(total=n_steps, desc=what, unit="mb", disable=disable)


class Training:
    """One run of `GRU4Rec.fit`: the compiled step, its shared variables, the loop over blocks."""

    def __init__(
        self, model: GRU4Rec, log: sessions.SessionLog, n_store_ids: int, on_device: bool
    ) -> None:
        # not at the top: sorted imports would put it before Theano is configured
        from theano.sandbox.rng_mrg import MRG_RandomStreams

        self.model, self.log = model, log
        # what is set while it trains counts for the next training
        self.parameters = p = model._trained
        order_seed, sample_seed, dropout_seed = np.random.SeedSequence(p.seed).spawn(3)
        self.order_rng = np.random.default_rng(order_seed) if p.train_random_order else None
        self.dropout_seed = int(dropout_seed.generate_state(1)[0] >> 1)
        self.dropout_rng = MRG_RandomStreams(self.dropout_seed)
        self.n_dropouts = 0
        self.steps_done = theano.shared(np.int64(0), name="steps_done")
        self.store = None
        if p.n_sample:
            draw = model.negative_sampler or _sampler_class()(
                log.support,
                p.sample_alpha,
                p.n_sample,
                int(sample_seed.generate_state(1, dtype=np.uint64)[0]),
            )
            merge = losses.has_kernel(p.final_act, p.loss) and (
                sampling.expected_distinct(log.support, p.sample_alpha, p.n_sample)
                < MERGE_BELOW * p.n_sample
            )
            self.store = sampling.SampleStore(draw, p.n_sample, n_store_ids, on_device, merge)
        nothing = np.zeros((1, 1), dtype=np.int32)
        self.inputs = theano.shared(nothing, name="inputs")
        self.targets = theano.shared(nothing, name="targets")
        # 0 where a session ends, so that its state is reset, else 1
        self.goes_on = theano.shared(nothing.astype(theano.config.floatX), name="goes_on")
        self.step = theano.shared(np.int64(0), name="step")
        self.costs = theano.shared(np.zeros(BLOCK_STEPS, dtype=theano.config.floatX), name="costs")
        self.states = model._zero_states(0)
        self.steps_per_second = 1
        log_support = np.log(np.maximum(log.support, 1)).astype(theano.config.floatX)
        model._log_support = theano.shared(log_support[:, None], name="log_support")
        self.step_function = self._compile()

    def _compile(self):
        """Compile one training step."""
        model, p = self.model, self.parameters
        negatives = self.store.negatives() if self.store else None
        cost, new_states, looked_up = model._training_cost(
            self.inputs[self.step], self.targets[self.step], negatives, self.states, self._dropout
        )
        updates = optimizers.training_updates(
            cost,
            model._dense_parameters(),
            looked_up,
            p.adapt,
            p.adapt_params,
            p.learning_rate,
            p.momentum,
            p.lmbd,
            p.grad_cap,
        )
        goes_on = self.goes_on[self.step].dimshuffle(0, "x")
        updates += [(h, new * goes_on) for h, new in zip(self.states, new_states)]
        updates += [(self.costs, tt.set_subtensor(self.costs[self.step], cost))]
        updates += [(self.step, self.step + 1), (self.steps_done, self.steps_done + 1)]
        if self.store:
            updates += [(self.store.row, self.store.row + 1)]
        logger.info("compiling the training step: seconds, on the first run half a minute")
        return theano.function([], [], updates=updates)

    def reset_states(self) -> None:
        """Set all states to zero, as at the beginning of an epoch."""
        for h, n in zip(self.states, self.parameters.layers):
            zeros = np.zeros((self.parameters.batch_size, n), dtype=theano.config.floatX)
            h.set_value(zeros, borrow=True)

    def run_steps(self, n: int) -> None:
        """Run n steps of the block without leaving Theano."""
        self.step_function.fn(n_calls=n)

    def _dropout(self, x: tt.TensorVariable, p: float) -> tt.TensorVariable:
        """Zero each element with probability p, scale the others by 1 / (1 - p)."""
        if p <= 0:
            return x
        if cpu_ops.usable():
            self.n_dropouts += 1
            seed = self.dropout_seed + (self.n_dropouts << 32)
            return cpu_ops.Dropout()(x, float(p), seed, self.steps_done)
        keep = 1 - p
        mask = self.dropout_rng.binomial(x.shape, p=keep, ndim=x.ndim, dtype=x.dtype)
        return x * mask * np.float32(1 / keep)

    def run(self, after_epoch: Callable[[int], None] | None = None) -> None:
        """Run all epochs; `after_epoch` gets the number of each one that is done, from 1 on."""
        if self.store and self.store.n_batches:
            kind = "GPU" if self.store.on_device else "CPU"
            print(
                f"Created sample store with {self.store.n_batches} batches of samples (type={kind})"
            )
        elif self.store:
            print("No sample store was used")
        for epoch in range(self.parameters.n_epochs):
            self._run_epoch(epoch)
            if after_epoch is not None:
                after_epoch(epoch + 1)

    def _run_epoch(self, epoch: int) -> None:
        p, log = self.parameters, self.log
        order = sessions.training_order(log, p.time_sort, self.order_rng)
        # without additional samples a single session has no negatives
        min_rows = 1 if self.store else 2
        n_steps = sessions.count_steps(log, order, p.batch_size, min_rows)
        blocks = sessions.schedule_blocks(log, order, p.batch_size, BLOCK_STEPS, min_rows)
        self.reset_states()
        costs, rows, done = [], [], 0
        start = time.perf_counter()
        with progress_bar(n_steps, f"Epoch {epoch + 1}") as progress:
            for block in blocks:
                steps_left = (p.n_epochs - epoch) * n_steps - done
                costs.append(self._run_block(block, steps_left, progress))
                self._check_costs(costs[-1], epoch, done)
                rows.append(np.full(len(costs[-1]), block.inputs.shape[1]))
                done += len(costs[-1])
        costs, rows = np.concatenate(costs), np.concatenate(rows)
        seconds = time.perf_counter() - start
        loss = np.average(costs, weights=rows)
        print(
            f"Epoch{epoch + 1} --> loss: {loss:.6f} \t({seconds:.2f}s) "
            f"\t[{len(costs) / seconds:.2f} mb/s | {rows.sum() / seconds:.0f} e/s]",
            flush=True,
        )

    def _run_block(self, block: sessions.Block, steps_left: int, progress: tqdm) -> np.ndarray:
        """Run the steps of a block; returns their costs, (K,) float64."""
        for h in self.states:
            h.set_value(h.get_value(borrow=True)[block.kept], borrow=True)
        self.inputs.set_value(block.inputs, borrow=True)
        self.targets.set_value(block.targets, borrow=True)
        self.goes_on.set_value((1 - block.ends).astype(theano.config.floatX), borrow=True)
        self.step.set_value(np.int64(0))
        n_steps, done = len(block.inputs), 0
        while done < n_steps:
            served = n_steps - done
            if self.store:
                # for the whole rest of the block: what is drawn must not depend on timing
                served = self.store.serve(served, steps_left - done)
            self._run_about_a_second_at_a_time(served, progress)
            done += served
        return self.costs.get_value()[:n_steps].astype(np.float64)

    def _run_about_a_second_at_a_time(self, n_steps: int, progress: tqdm) -> None:
        """Run steps; Ctrl-C and the progress bar wait for Python in between."""
        while n_steps:
            n = min(n_steps, self.steps_per_second)
            start = time.perf_counter()
            self.run_steps(n)
            seconds = max(time.perf_counter() - start, 1e-6)
            self.steps_per_second = max(1, int(min(n / seconds, BLOCK_STEPS)))
            progress.update(n)
            n_steps -= n

    def _check_costs(self, costs: np.ndarray, epoch: int, n_before: int) -> None:
        finite = np.isfinite(costs)
        if finite.all():
            return
        p = self.parameters
        step = n_before + int(np.argmin(finite))
        raise TrainingDiverged(
            f"the loss became NaN or infinite in epoch {epoch + 1}, step {step + 1}; usual causes "
            f"are learning_rate ({p.learning_rate}) or momentum ({p.momentum}) too high "
            f"for batch_size {p.batch_size}, or bpreg ({p.bpreg}) with an unbounded "
            f"final_act ({p.final_act}): lower them, or set grad_cap"
        )
