"""Training: the compiled step, the variables it works on, and the loop over blocks of steps.

Nothing leaves Theano inside a block: the schedule is uploaded before it, the losses read after it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from gru4rec_toolkit import theano_setup
from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.errors import InputError, TrainingDiverged
from gru4rec_toolkit.model import losses, optimizers
from gru4rec_toolkit.model.block import UploadedBlock
from gru4rec_toolkit.model.checkpoint import Checkpoints
from gru4rec_toolkit.model.dropout import Dropout
from gru4rec_toolkit.model.negatives import SampleStore, checked, expected_distinct
from gru4rec_toolkit.model.validation import Course
from gru4rec_toolkit.ops.sampling import sampler
from gru4rec_toolkit.parameters import Values
from gru4rec_toolkit.progress import progress_bar
from gru4rec_toolkit.theano_setup import tensor as tt
from gru4rec_toolkit.theano_setup import theano

logger = logging.getLogger("gru4rec")

# steps whose schedule is uploaded together, some 100 kB; their losses are read at the end
BLOCK_STEPS = 512
# a mini-batch's equal negatives are merged where fewer than this fraction of them are distinct
MERGE_BELOW = 0.98


# the models that are being trained; no attributes, which copies of a model would have too
_in_training: set[int] = set()
_lock = threading.Lock()


def one_at_a_time_of_a_model(fit: Callable[..., None]) -> Callable[..., None]:
    """Let a method refuse what would lose one of two trainings: the same model's before its end."""

    @functools.wraps(fit)
    def alone(self, *arguments, **options) -> None:
        with _lock:
            if id(self) in _in_training:
                raise InputError(
                    "fit: the model is being trained, by another thread or by the fit that called "
                    "this function; train another GRU4Rec"
                )
            _in_training.add(id(self))
        try:
            fit(self, *arguments, **options)
        finally:
            _in_training.discard(id(self))

    return alone


class Model(Protocol):
    """The network that a training needs: `gru4rec.Network`, or a variant of it."""

    settings: Values

    def cost(self, inputs, targets, negatives, states, dropout, log_support) -> tuple: ...

    def dense_parameters(self) -> list: ...

    def zero_states(self, n_rows: int) -> list: ...

    def variables(self) -> list: ...


class Training:
    """One run of `GRU4Rec.fit`: the compiled step, its shared variables, the loop over blocks.

    Parameters
    ----------
    network : Model
        The training uses its settings, whatever is set meanwhile.
    log : SessionLog
    n_store_ids : int
        Negative ids that the store holds.
    on_device : bool
        Whether the store lies where Theano computes.
    negative_sampler : callable or None
        Draws the negatives instead of the Op.
    course : Course, optional
        What is done after each epoch.
    keep_optimizer : bool
        Whether the optimizer's state belongs to the result.
    """

    def __init__(
        self,
        network: Model,
        log: sessions.SessionLog,
        n_store_ids: int,
        on_device: bool,
        negative_sampler: Callable[[int], np.ndarray] | None = None,
        course: Course | None = None,
        keep_optimizer: bool = False,
    ) -> None:
        self.network, self.log = network, log
        self.course = Course() if course is None else course
        self.keep_optimizer = keep_optimizer
        self.parameters = p = network.settings
        order_seed, sample_seed, dropout_seed = np.random.SeedSequence(p.seed).spawn(3)
        self.order_rng = np.random.default_rng(order_seed) if p.train_random_order else None
        self.dropout = Dropout(
            int(dropout_seed.generate_state(1)[0] >> 1), p.dropout_mask, p.batch_size
        )
        self.store = None
        if p.n_sample:
            if negative_sampler:
                draw = checked(negative_sampler, p.n_sample, log.n_items)
            else:
                draw = sampler(
                    log.support,
                    p.sample_alpha,
                    p.n_sample,
                    int(sample_seed.generate_state(1, dtype=np.uint64)[0]),
                )
            merge = losses.counts_copies(p.loss, p.final_act) and (
                expected_distinct(log.support, p.sample_alpha, p.n_sample)
                < MERGE_BELOW * p.n_sample
            )
            self.store = SampleStore(draw, p.n_sample, n_store_ids, on_device, merge)
        # without additional samples a single session has no negatives
        self.min_rows = 1 if self.store else 2
        self._planned: tuple[np.ndarray, int] | None = None
        self.block = UploadedBlock()
        self.block_steps = max(BLOCK_STEPS // p.bptt, 1) * p.bptt
        costs = np.zeros(self.block_steps, dtype=theano.config.floatX)
        self.costs = theano.shared(costs, name="costs")
        self.states = [*network.zero_states(0), *self.dropout.states]
        self.steps_per_second = 1
        # where the training is: epochs that are done, blocks of the next one, and what is printed
        # at its end
        self.epoch = self.block_number = 0
        self.seconds = 0.0
        self.costs_of_epoch: list[np.ndarray] = []
        self.rows_of_epoch: list[np.ndarray] = []
        log_support = np.log(np.maximum(log.support, 1)).astype(theano.config.floatX)
        self.log_support = theano.shared(log_support[:, None], name="log_support")
        # the window of steps of every length, which all work on the same states
        self.functions = self._compile_all()

    def _compile_all(self) -> dict[int, Any]:
        """Compile windows of steps, by their length, the longest first."""
        made: dict = {}
        n_steps = self.parameters.bptt
        if n_steps == 1:
            logger.info("compiling the training step: on the first run some ten seconds, later one")
        else:
            logger.info("compiling windows of up to %d steps: some second for each step", n_steps)
        began = time.perf_counter()
        with optimizers.shared_states(made):
            functions = {n: self.compile(n) for n in window_lengths(n_steps)}
        logger.debug("the training step was compiled in %.2f s", time.perf_counter() - began)
        return functions

    def compile(self, n_steps: int = 1):
        """Compile one update of the weights, by the gradient through so many steps."""
        block, p = self.block, self.parameters
        n_layers, states = len(p.layers), self.states
        costs: list = []
        lookups: dict[Any, list] = {}
        for n in range(n_steps):
            step, keys = block.after(n), states[n_layers:]
            cost, new_states, looked_up = self.network.cost(
                step.inputs,
                step.targets,
                self.store.negatives(n) if self.store else None,
                states[:n_layers],
                self.dropout.of_step(n, keys),
                self.log_support,
            )
            # the gradient ends where a session does, as the state does
            goes_on = step.goes_on.dimshuffle(0, "x")
            states = [new * goes_on for new in new_states]
            states += self.dropout.after_step(n, keys, step.goes_on)
            costs.append(cost)
            for table, of_step in looked_up:
                lookups.setdefault(table, []).extend(of_step)
        updates = optimizers.training_updates(
            sum(costs) / np.float32(n_steps) if n_steps > 1 else costs[0],
            self.network.dense_parameters(),
            list(lookups.items()),
            p.adapt,
            p.adapt_params,
            p.learning_rate,
            p.momentum,
            p.lmbd,
            p.grad_cap,
        )
        updates += list(zip(self.states, states))
        all_costs = self.costs
        for n, cost in enumerate(costs):
            row = block.step + n if n else block.step
            all_costs = tt.set_subtensor(all_costs[row], cost)
        updates += [(self.costs, all_costs)]
        counters = [block.step, self.dropout.steps_done, *([self.store.row] if self.store else [])]
        updates += [(counter, counter + n_steps) for counter in counters]
        return theano.function([], [], updates=updates)

    def reset_states(self) -> None:
        """Set all states to zero, as at the beginning of an epoch."""
        for h, n in zip(self.states, self.parameters.layers):
            zeros = np.zeros((self.parameters.batch_size, n), dtype=theano.config.floatX)
            h.set_value(zeros, borrow=True)
        self.dropout.reset()

    @property
    def step_function(self):
        """Return the compiled step; with ``bptt`` a window of so many steps."""
        return self.functions[self.parameters.bptt]

    def run_steps(self, n: int) -> None:
        """Run n steps of the block without leaving Theano, in windows as long as can be."""
        for length, function in self.functions.items():
            n_windows, n = divmod(n, length)
            if n_windows:
                function.fn(n_calls=n_windows)

    def variables(self) -> dict[str, theano.compile.SharedVariable]:
        """Return what a step changes and the next one needs, by name."""
        inputs = [i for f in self.functions.values() for i in f.maker.expanded_inputs]
        # each once: the functions share nearly all of them
        changed = list(dict.fromkeys(i.variable for i in inputs if i.update is not None))
        # the block and the store are made again; the losses are read after each block
        others = [self.costs, self.block.step, *([self.store.row] if self.store else [])]
        found: dict[str, theano.compile.SharedVariable] = {}
        for variable in changed:
            if not any(variable is other for other in others):
                name = variable.name or "random"  # the state of a stream of random numbers
                n_before = sum(known.split("#")[0] == name for known in found)
                found[f"{name}#{n_before}" if n_before else name] = variable
        return found

    def optimizer_state(self) -> dict[str, theano.compile.SharedVariable]:
        """Return the optimizer's states and the velocities, by the weight's name and their own."""
        weights = tuple(f"{weight.name}_" for weight in self.network.variables())
        return {name: v for name, v in self.variables().items() if name.startswith(weights)}

    def take_optimizer_state(self, kept: Mapping[str, np.ndarray]) -> None:
        """Go on with the optimizer's state of an earlier training; new items begin with zeros.

        Raises
        ------
        InputError
            If there is one, and it belongs to another optimizer.
        """
        if not kept:
            return
        mine = self.optimizer_state()
        same = sorted(kept) == sorted(mine) and all(
            array.shape[1:] == mine[name].get_value(borrow=True).shape[1:]
            for name, array in kept.items()
        )
        if not same:
            raise InputError(
                "keep_optimizer: the model keeps the state of another optimizer; set adapt and "
                "momentum as they were, or leave keep_optimizer out"
            )
        for name, array in kept.items():
            value = mine[name].get_value()
            value[: len(array)] = array
            mine[name].set_value(value, borrow=True)

    def result(self) -> dict[str, np.ndarray]:
        """Return copies of the weights, and of the optimizer's state where it is kept, by name."""
        return {name: v.get_value() for name, v in self._result_variables().items()}

    def _result_variables(self) -> dict[str, theano.compile.SharedVariable]:
        found = {v.name: v for v in self.network.variables()}
        return {**found, **(self.optimizer_state() if self.keep_optimizer else {})}

    def check_result(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise a ValueError if arrays are no `result` of this training."""
        _check_fit(arrays, self._result_variables())

    def put_result(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set the weights, and the optimizer's state where it is kept, to a `result`."""
        for name, variable in self._result_variables().items():
            variable.set_value(arrays[name])

    def restore(
        self,
        epoch: int,
        block_number: int,
        n_served: int,
        seconds: float,
        costs: np.ndarray,
        rows: np.ndarray,
        values: dict[str, np.ndarray],
    ) -> None:
        """Go on where another training of the same data and parameters was.

        Parameters
        ----------
        epoch, block_number : int
            Epochs, and blocks of the next one, that are done.
        n_served : int
            Mini-batches of negatives that were used.
        seconds : float
            What the epoch has taken.
        costs, rows : (n_steps,) float64 and int arrays
            Of the epoch's steps.
        values : dict of str to array
            Of the `variables`, and of the `course`.

        Raises
        ------
        ValueError
            If something does not fit; nothing is changed then.
        """
        variables = self.variables()
        records, values = self.course.split(values)
        _check_fit(values, variables, self.states)
        is_vector = costs.ndim == 1 and costs.shape == rows.shape and rows.dtype.kind == "i"
        is_vector = is_vector and bool(np.isfinite(costs).all() and (rows > 0).all())
        if not is_vector or (block_number > 0) != (len(rows) > 0):
            raise ValueError("the losses of its epoch are none")
        self.course.restore(self, epoch, records)
        for name, variable in variables.items():
            variable.set_value(values[name])
        if self.store:
            self.store.skip(n_served)
        self.epoch, self.block_number, self.seconds = epoch, block_number, seconds
        self.costs_of_epoch, self.rows_of_epoch = [costs.astype(np.float64)], [rows]

    def run(
        self,
        after_epoch: Callable[[int], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Run all epochs, or those that are left.

        Parameters
        ----------
        after_epoch : callable, optional
            Gets the number of each epoch that is done, from 1 on.
        checkpoints : Checkpoints, optional
            Keeps the training's state.

        Notes
        -----
        However the training ends, with a validation the network has the weights of the best epoch.
        """
        if self.store and self.store.n_batches:
            kind = "GPU" if self.store.on_device else "CPU"
            print(
                f"Created sample store with {self.store.n_batches} batches of samples (type={kind})"
            )
        elif self.store:
            print("No sample store was used")
        setup = theano_setup.configure()
        logger.info(
            "seed %d on %s with %d threads: all three and the same data give the same weights, bit "
            "for bit",
            *(self.parameters.seed, setup.device, setup.threads),
        )
        course = self.course
        waiting = checkpoints.signals_wait() if checkpoints else contextlib.nullcontext()
        with course.told_of_the_end(self), waiting:
            for _ in range(self.epoch):
                self._order()  # where it is random, it goes on from the one before
            course.begin(self)
            while self.epoch < self.parameters.n_epochs and not course.is_over:
                sums = self.run_epoch(checkpoints)
                # what is called now may fail or be interrupted
                if checkpoints is not None and (course.acts or after_epoch is not None):
                    checkpoints.write(self)
                course.epoch_done(self, *sums)
                if after_epoch is not None:
                    after_epoch(self.epoch + 1)
                self.next_epoch()
                if checkpoints is not None:
                    checkpoints.epoch_done(self)

    def next_epoch(self) -> None:
        """Leave an epoch that is done behind."""
        self.epoch, self.block_number, self.seconds = self.epoch + 1, 0, 0.0
        self.costs_of_epoch, self.rows_of_epoch = [], []

    def _order(self) -> np.ndarray:
        """Return the order of the next epoch's sessions."""
        return schedule.training_order(self.log, self.parameters.time_sort, self.order_rng)

    def _plan(self) -> tuple[np.ndarray, int]:
        """Return the order of the next epoch's sessions, and how many steps they take."""
        if self._planned is None or self.order_rng is not None:
            order, size = self._order(), self.parameters.batch_size
            self._planned = order, schedule.count_steps(self.log, order, size, self.min_rows)
        return self._planned

    def run_epoch(self, checkpoints: Checkpoints | None = None) -> tuple[float, int, int]:
        """Run an epoch, or what is left of it; print and return its loss, and count what it took.

        Returns
        -------
        (loss, n_steps, n_events)
        """
        p, log, epoch = self.parameters, self.log, self.epoch
        order, n_steps = self._plan()
        blocks = schedule.schedule_blocks(
            log, order, p.batch_size, self.block_steps, self.min_rows
        )
        if self.block_number == 0:
            self.reset_states()
        done = sum(map(len, self.costs_of_epoch))
        start = time.perf_counter() - self.seconds
        with progress_bar(n_steps, f"Epoch {epoch + 1}", done=done) as progress:
            if self.block_number and checkpoints is not None:
                self._skip_blocks(blocks, checkpoints.path)
            for block in blocks:
                steps_left = (p.n_epochs - epoch) * n_steps - done
                costs = self.run_block(block, steps_left, progress)
                self._check_costs(costs, epoch, done)
                self.costs_of_epoch.append(costs)
                self.rows_of_epoch.append(np.full(len(costs), block.inputs.shape[1]))
                done += len(costs)
                self.block_number += 1
                self.seconds = time.perf_counter() - start
                if checkpoints is not None:
                    checkpoints.block_done(self)
        costs, rows = map(np.concatenate, (self.costs_of_epoch, self.rows_of_epoch))
        seconds = max(self.seconds, 1e-9)
        loss = float(np.average(costs, weights=rows))
        print(
            f"Epoch{epoch + 1} --> loss: {loss:.6f} \t({seconds:.2f}s) "
            f"\t[{len(costs) / seconds:.2f} mb/s | {rows.sum() / seconds:.0f} e/s]",
            flush=True,
        )
        return loss, len(costs), int(rows.sum())

    def _skip_blocks(self, blocks: Iterator[schedule.Block], path: str) -> None:
        """Leave out the blocks that are done; raise an InputError if they cannot have been."""
        sizes = [block.inputs.shape for block in itertools.islice(blocks, self.block_number)]
        rows = np.repeat([n for _, n in sizes], [n_steps for n_steps, _ in sizes])
        fits = len(sizes) == self.block_number and np.array_equal(rows, self.rows_of_epoch[0])
        if not fits or any(len(h.get_value(borrow=True)) != sizes[-1][1] for h in self.states):
            raise InputError(
                f"checkpoint {path}: its state does not fit this training (other steps are done); "
                "delete it, or give another directory"
            )

    def run_block(self, block: schedule.Block, steps_left: int, progress) -> np.ndarray:
        """Run the steps of a block; returns their costs, (K,) float64."""
        self.block.upload(block, self.states)
        n_steps, done = len(block.inputs), 0
        while done < n_steps:
            served = n_steps - done
            if self.store:
                # for the whole rest of the block, so that the draws do not depend on timing
                served = self.store.serve(served, steps_left - done, self.parameters.bptt)
            self._run_about_a_second_at_a_time(served, progress)
            done += served
        return self.costs.get_value()[:n_steps].astype(np.float64)

    def _run_about_a_second_at_a_time(self, n_steps: int, progress) -> None:
        """Run steps; Ctrl-C and the progress bar wait for Python in between."""
        bptt = self.parameters.bptt
        while n_steps:
            # whole windows, whatever the time, so that the weights do not depend on it
            n = min(n_steps, max(self.steps_per_second // bptt, 1) * bptt)
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


def window_lengths(bptt: int) -> list[int]:
    """Return the lengths of windows of steps, the longest first.

    A block is cut into windows of ``bptt`` steps. What is left of it takes shorter ones, of powers
    of two, so that few lengths have to be compiled.
    """
    powers = [1 << i for i in range(bptt.bit_length()) if 1 << i < bptt]
    return [bptt, *reversed(powers)]


def _check_fit(
    arrays: Mapping[str, np.ndarray],
    variables: Mapping[str, theano.compile.SharedVariable],
    states: Sequence = (),
) -> None:
    """Raise a ValueError if arrays do not have the names, shapes and types of variables.

    The states have as many rows as the block before has sessions.
    """
    if sorted(variables) != sorted(arrays):
        raise ValueError("it has other variables")
    for name, variable in variables.items():
        old, new = variable.get_value(borrow=True), arrays[name]
        is_state = any(variable is h for h in states)
        same_shape = old.shape[is_state:] == new.shape[is_state:] and old.ndim == new.ndim
        if not same_shape or old.dtype != new.dtype:
            raise ValueError(f"{name} has the shape {new.shape} and the type {new.dtype}")
