"""One worker of a search: runs the trials that the study lacks, each as a process.

A trial is complete, pruned or failed. The first two count; a failed one is replaced by another. Any
number of workers, on any machines, share a study through its storage and together run its number of
trials.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from gru4rec_toolkit import files, parameters
from gru4rec_toolkit.errors import InputError, one_line
from gru4rec_toolkit.search import methods, report
from gru4rec_toolkit.search.journal import DamagedJournal
from gru4rec_toolkit.search.report import NOT_NEEDED
from gru4rec_toolkit.search.settings import Settings, describe, difference
from gru4rec_toolkit.search.space import SearchParameter
from gru4rec_toolkit.search.storage import check_storage, file_of, open_storage, shown
from gru4rec_toolkit.search.trial import Training, TrainingFailed, read_epoch, read_metric
from gru4rec_toolkit.search.undertaker import Undertaker, this_worker

logger = logging.getLogger("gru4rec")
# seconds between looks at the trials of other workers
POLL_SECONDS = 1.0
# seconds until a killed training's trial is recorded, at most
STOP_SECONDS = 30
# attribute of the study: what it searches
DESCRIPTION = "gru4rec"
FINAL_LOG = "final.log"
TAKEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class SearchFailed(Exception):
    """Failure that ends the search; the message says why."""


@dataclass
class _Shared:
    """State that the jobs of a worker share."""

    claiming: threading.Lock = field(default_factory=threading.Lock)
    printing: threading.RLock = field(default_factory=threading.RLock)
    stop: threading.Event = field(default_factory=threading.Event)
    trainings: set[Training] = field(default_factory=set)
    failures: int = 0
    last_reason: str = ""
    last_begun: int | None = None
    error: BaseException | None = None


class _Claim:
    """Right of one of a worker's jobs to create a trial, until it is known to be needed."""

    def __init__(self, lock: threading.Lock) -> None:
        self.lock, self.held = lock, False
        self.number: int | None = None
        self.surplus = False

    def __enter__(self) -> _Claim:
        self.held = self.lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        if self.held:
            self.held = False
            self.lock.release()


class Search:
    """One worker of a study.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    InputError
        If the storage cannot be used, or its study searches something else.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.worker = this_worker()
        self.logs = settings.results / "logs"
        self.shown = shown(settings.storage)
        check_storage(settings.storage)
        _check_places(settings)
        description = describe(settings)
        self.sampler = methods.make_sampler(
            settings.sampler, settings.seed, settings.space
        )
        self.grid_size = None
        if settings.sampler == "grid":
            self.grid_size = methods.grid_size(settings.space)
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise InputError(
                f"--results {settings.results}: {err.strerror}; give a writable directory"
            ) from None
        self.storage = open_storage(settings.storage, settings.heartbeat)
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=settings.study,
            direction="maximize",
            sampler=self.sampler,
            pruner=methods.make_pruner(settings.pruner, settings.most_epochs),
            load_if_exists=True,
        )
        self._check_description(description)
        self._check_trials()
        if self.study.metric_names != [settings.metric_name]:
            # Optuna's dashboard and plots call it "Objective 0" otherwise
            self.study.set_metric_names([settings.metric_name])
        self.undertaker = Undertaker(self.study, self.storage)
        self.shared = _Shared()

    def _check_description(self, now: dict[str, Any]) -> None:
        """Compare with what the study has searched so far."""
        before = self.study.user_attrs.get(DESCRIPTION)
        if self.study.directions != [StudyDirection.MAXIMIZE] or not isinstance(
            before, (dict, type(None))
        ):
            raise InputError(
                f"--study {self.settings.study}: this study of {self.shown} is not of paropt.py; "
                "give another name"
            )
        if before is None:
            if self.trials():
                raise InputError(
                    f"--study {self.settings.study}: this study has trials that are not of "
                    "paropt.py; give another name"
                )
            self.study.set_user_attr(DESCRIPTION, now)
            return
        for option, value in now.items():
            if before.get(option) != value:
                raise InputError(
                    f"study {self.settings.study} was begun with another {option}: "
                    f"{difference(before.get(option), value)}; give what it was begun with, or "
                    "another --study"
                )

    def _check_trials(self) -> None:
        """Find out whether a storage that was damaged or edited holds trials of this program."""
        for trial in self.trials():
            problem = _problem(trial, self.settings.space)
            if problem:
                raise InputError(
                    f"--storage {self.shown}: trial {trial.number} of study {self.settings.study} "
                    f"has {problem}; restore the storage or give another --study"
                )

    # ------------------------------------------------------------------------ counting

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _open_places(self) -> int:
        taken = sum(trial.state in TAKEN for trial in self.trials())
        return self.settings.n_trials - taken

    def is_finished(self) -> bool:
        """Tell whether all trials are done, or all of the grid is."""
        trials = self.trials()
        if sum(map(report.is_good, trials)) >= self.settings.n_trials:
            return True
        return self._grid_is_taken(trials) and not any(
            t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials
        )

    def _grid_is_taken(self, trials: list[FrozenTrial]) -> bool:
        """Tell whether every point of a grid has had its trial; failed ones are not replaced."""
        taken = {t.system_attrs["grid_id"] for t in trials if "grid_id" in t.system_attrs}
        waiting = any(t.state == TrialState.WAITING for t in trials)
        return self.grid_size is not None and len(taken) >= self.grid_size and not waiting

    def _is_surplus(self, trial: optuna.Trial) -> bool:
        """Tell whether trials with lower numbers, of other workers too, leave no place or point.

        Workers that count at the same moment each create a trial; all of them agree which of these
        is one too many.
        """
        states = (*TAKEN, TrialState.WAITING)
        trials = self.trials()
        before = [t for t in trials if t.number < trial.number]
        (mine,) = (t for t in trials if t.number == trial.number)
        if self.grid_size is not None and "failed_trial" not in mine.system_attrs:
            point = mine.system_attrs["grid_id"]
            if any(t.system_attrs.get("grid_id") == point for t in before):
                return True
        ahead = sum(t.state in states for t in before)
        return ahead >= self.settings.n_trials

    # ------------------------------------------------------------------------ running

    def run(self) -> None:
        """Run trials until the study has its number, with those of all workers.

        Raises
        ------
        SearchFailed
            If too many trials fail in a row.
        KeyboardInterrupt
            On Ctrl-C; trials in progress are recorded as failed.
        """
        self.undertaker.look()
        self.write_results()
        # not Thread.join: a Ctrl-C in it makes Python take the thread for ended
        ended = [threading.Event() for _ in self.settings.devices]
        try:
            for index, end in enumerate(ended):
                threading.Thread(target=self._job, args=(index, end), daemon=True).start()
            for end in ended:
                end.wait()
        except BaseException:
            self._stop("interrupted")
            for end in ended:
                end.wait(STOP_SECONDS)
            with contextlib.suppress(InputError):
                self.write_results()
            raise
        if self.shared.error is not None:
            raise self.shared.error

    def _stop(self, reason: str) -> None:
        self.shared.stop.set()
        for training in list(self.shared.trainings):
            training.stop(reason)

    def _job(self, index: int, ended: threading.Event) -> None:
        """Run trials on one device, in a thread of its own."""
        try:
            waiting = False
            while not self.shared.stop.is_set() and not self.is_finished():
                self.undertaker.look()
                if self._claim_and_run(index):
                    waiting = False
                    self._after_trial()
                    continue
                if not waiting and index == 0:
                    self._print("Waiting for the last trials of other jobs and workers")
                waiting = True
                self.shared.stop.wait(POLL_SECONDS)
        except BaseException as err:
            with self.shared.printing:
                self.shared.error = self.shared.error or in_one_sentence(err, self.shown)
            self._stop("the search stopped")
        finally:
            ended.set()

    def _claim_and_run(self, index: int) -> bool:
        """Run a trial if the study lacks one; returns whether it did."""
        with _Claim(self.shared.claiming) as claim:
            if self._open_places() <= 0 or self._grid_is_taken(self.trials()):
                return False
            try:
                self.study.optimize(
                    lambda trial: self._objective(trial, index, claim),
                    n_trials=1,
                    catch=(TrainingFailed,),
                )
            except Exception:
                if not self._was_queued_again(claim.number):
                    raise
                self._print(
                    f"TRIAL {claim.number} came too late: other workers had missed this one's "
                    "heartbeat and queued the trial again"
                )
            return not claim.surplus

    def _was_queued_again(self, number: int | None) -> bool:
        return number is not None and any(
            t.user_attrs.get("retry_of") == number for t in self.trials()
        )

    def _objective(self, trial: optuna.Trial, index: int, claim: _Claim) -> float:
        settings = self.settings
        claim.number = trial.number
        trial.set_user_attr("worker", self.worker)
        chosen = {p.name: p.suggest(trial) for p in settings.space}
        claim.surplus = self._is_surplus(trial)
        claim.release()
        if claim.surplus:
            trial.set_user_attr("reason", NOT_NEEDED)
            raise TrainingFailed(NOT_NEEDED)
        log = self.logs / f"trial_{trial.number:04d}.log"
        trial.set_user_attr("log", os.path.relpath(log, settings.results))
        training = Training(
            self._arguments(chosen), log, self.settings.environment(settings.devices[index])
        )
        self._print(f"TRIAL {trial.number}: {_string(chosen)}")
        self.shared.last_begun = trial.number
        try:
            value = self._train(trial, training)
            if self._was_queued_again(trial.number):
                raise TrainingFailed("it came too late")
            self.shared.failures = 0
            return value
        except optuna.TrialPruned:
            self.shared.failures = 0
            raise
        except TrainingFailed as err:
            if self._was_queued_again(trial.number):
                raise
            trial.set_user_attr("reason", str(err))
            if not self.shared.stop.is_set():
                self.shared.failures += 1
                self.shared.last_reason = str(err)
                self._print(f"TRIAL {trial.number} FAILED: {err} (log: {log})")
            raise

    def _train(self, trial: optuna.Trial, training: Training) -> float:
        metrics: list[float] = []
        pruning = self.settings.pruner != "none"

        def on_line(line: str) -> None:
            self._print(f"[trial {trial.number}] {line}")
            value = read_metric(line)
            if value is not None:
                metrics.append(value)
            epoch = read_epoch(line, self.settings.metric) if pruning else None
            if epoch is not None:
                number, value = epoch
                trial.report(value, step=number)
                if trial.should_prune():
                    self._print(f"TRIAL {trial.number} PRUNED after epoch {number}")
                    raise optuna.TrialPruned(f"after epoch {number}")

        self.shared.trainings.add(training)
        if self.shared.stop.is_set():
            training.stop("interrupted")
        try:
            training.run(on_line)
        finally:
            self.shared.trainings.discard(training)
        if not metrics:
            raise TrainingFailed("the training printed no line `PRIMARY METRIC: x`")
        if not 0 <= metrics[-1] <= 1:  # NaN is not better, either
            raise TrainingFailed(f"the metric is {metrics[-1]}, not a number from 0 to 1")
        return metrics[-1]

    def _arguments(self, chosen: dict[str, str]) -> list[str]:
        """Return the command line of a trial's run.py."""
        settings = self.settings
        arguments = [settings.train, "-ps", _string({**settings.fixed, **chosen})]
        arguments += ["-t", settings.test, "-m", str(settings.length)]
        arguments += ["-pm", settings.metric, "-lpm", "-e", settings.eval_type]
        if settings.pruner != "none":
            arguments.append("-ee")
        return arguments + self._model_and_columns()

    def _model_and_columns(self) -> list[str]:
        columns = [(f"--{name}", value) for name, value in self.settings.columns.items()]
        # not -q: their standard error is the log, which has to tell why one failed
        detail = ["-v"] if self.settings.verbose else []
        return ["-g", self.settings.model, *(text for pair in columns for text in pair), *detail]

    # ------------------------------------------------------------------------ results

    def _print(self, text: str) -> None:
        with self.shared.printing:
            print(text, flush=True)

    def _after_trial(self) -> None:
        settings = self.settings
        with self.shared.printing:
            try:
                self.write_results()
            except InputError as err:  # the study is in its storage, and other trials are running
                logger.warning("%s", err)
            trials = self.trials()
            counts = {s: sum(t.state == s for t in trials) for s in TrialState}
            failed = counts[TrialState.FAIL] - sum(
                t.user_attrs.get("reason") == NOT_NEEDED for t in trials
            )
            done = counts[TrialState.COMPLETE] + counts[TrialState.PRUNED]
            print(
                f"\nTRIALS {done} of {settings.n_trials} done "
                f"({counts[TrialState.PRUNED]} pruned), {failed} failed, "
                f"{counts[TrialState.RUNNING]} running"
            )
            print(report.best_table(trials, settings.space, settings.metric_name))
            print(flush=True)
        if self.shared.failures >= settings.max_failures:
            raise SearchFailed(
                f"{self.shared.failures} trials in a row failed (--max_failures), the last one "
                f"because: {self.shared.last_reason}; {settings.results / report.RESULTS} "
                "names all reasons and logs; remove them and run the same command again"
            )

    def write_results(self) -> None:
        """Write results.tsv and, once there is one, the best parameters' file."""
        settings, trials = self.settings, self.trials()
        report.write_whole(
            settings.results / report.RESULTS,
            report.results_table(trials, settings.space, settings.metric_name),
        )
        best = report.best_first(trials)
        if best:
            heading = (
                f"Best of {sum(map(report.is_good, trials))} trials of study "
                f"{settings.study}: trial {best[0].number}, {settings.metric_name} "
                f"{best[0].value:.6f}."
            )
            report.write_whole(
                settings.results / report.BEST,
                report.paramfile(
                    {**self.best_settings(best[0]), **settings.columns}, heading
                ),
            )

    def best_settings(self, trial: FrozenTrial) -> dict[str, str]:
        """Return all parameters of a trial that are not left at their defaults."""
        return {**self.settings.fixed, **report.texts(trial, self.settings.space)}

    def final_is_mine(self) -> bool:
        """Tell whether this worker does the final training: it ended the last trial or had none.

        All workers of a study that ends see the same last trial.
        """
        if self.shared.last_begun is None:
            return True
        good = [t for t in self.trials() if report.is_good(t)]
        last = max(good, key=lambda t: (t.datetime_complete, t.number), default=None)
        return last is None or last.user_attrs.get("worker") == self.worker

    def train_best(self, lengths: Sequence[int]) -> None:
        """Train with the best parameters and print all metrics, as run.py does.

        Raises
        ------
        SearchFailed
            If no trial is complete or the training fails.
        """
        settings = self.settings
        best = report.best_first(self.trials())
        if not best:
            raise SearchFailed("no trial is complete, so there are no best parameters")
        log = settings.results / FINAL_LOG
        arguments = [settings.train, "-ps", _string(self.best_settings(best[0]))]
        arguments += ["-t", settings.test, "-m", *map(str, lengths), "-e", settings.eval_type]
        training = Training(
            [*arguments, *self._model_and_columns()],
            log,
            # the other jobs have ended, so the threads are not divided
            {**self.settings.environment(settings.devices[0]), **_undivided()},
        )
        self._print(f"FINAL TRAINING with the parameters of trial {best[0].number}")
        try:
            training.run(self._print)
        except TrainingFailed as err:
            raise SearchFailed(f"the final training failed: {err} (log: {log})") from None
        except BaseException:
            training.stop("interrupted")
            raise


def _undivided() -> dict[str, str]:
    threads = os.environ.get("OPENBLAS_NUM_THREADS")
    return {"OPENBLAS_NUM_THREADS": threads or ""}


def _string(settings: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in settings.items())


def _check_places(settings: Settings) -> None:
    """Check that the storage is none of the files that a search writes beside it."""
    storage = file_of(settings.storage)
    if storage is None:
        return
    real = os.path.realpath(storage)
    logs = os.path.realpath(settings.results / "logs")
    names = (report.RESULTS, report.BEST, FINAL_LOG)
    taken = [os.path.realpath(settings.results / name) for name in names]
    if real in taken or os.path.commonpath([real, logs]) == logs:
        raise InputError(
            f"--storage {storage}: this is the place of results in --results {settings.results}; "
            "give another path"
        )


def _problem(trial: FrozenTrial, space: Sequence[SearchParameter]) -> str | None:
    """Say what of a trial this program has not written; None if there is nothing of that."""
    worker = trial.user_attrs.get("worker")
    if worker is not None and not (
        isinstance(worker, dict)
        and {"host", "machine", "start"} <= worker.keys()
        and isinstance(worker.get("pid"), int)
    ):
        return f"a worker that cannot be read ({worker!r})"
    first, history = (trial.system_attrs.get(n) for n in ("failed_trial", "retry_history"))
    if not isinstance(first, (int, type(None))) or not isinstance(history, (list, type(None))):
        return "a retry that cannot be read"
    if trial.values is not None and len(trial.values) != 1:
        return f"{len(trial.values)} metrics"
    if trial.state == TrialState.COMPLETE and not (
        isinstance(trial.value, (int, float)) and math.isfinite(trial.value)
    ):
        return f"the metric {trial.value}"
    if report.is_good(trial) and trial.datetime_complete is None:
        return "no end"
    try:
        parameters.convert(report.texts(trial, space))
    except (ValueError, TypeError, ArithmeticError) as err:
        return f"parameters that cannot be read ({one_line(err)})"
    return None


@contextlib.contextmanager
def removed_on_failure(*folders: Path) -> Iterator[None]:
    """Remove directories again, if they were made and stay empty, when what they were for fails."""
    made = files.missing(*folders)
    try:
        yield
    except BaseException:
        files.remove_empty(made)
        raise


@contextlib.contextmanager
def storage_errors(storage: str, kind: type[Exception] = SearchFailed) -> Iterator[None]:
    """Turn what a storage raises into one sentence, an exception of this kind."""
    try:
        yield
    except Exception as err:
        told = in_one_sentence(err, storage)
        if told is err:
            raise
        raise (kind(str(told)) if isinstance(told, SearchFailed) else told) from None


def in_one_sentence(err: BaseException, storage: str) -> BaseException:
    """Turn what a storage raises while the search runs into a message; leave the rest alone."""
    if isinstance(err, (InputError, SearchFailed, BrokenPipeError)):
        return err
    # Optuna wraps some of it, and stumbles over a trial whose end it cannot record
    link: BaseException | None = err
    while link is not None:
        if isinstance(link, DamagedJournal):
            return link
        database = type(link).__module__.startswith("sqlalchemy.")
        if isinstance(link, OSError) or database:
            reason = getattr(link, "orig", None) or getattr(link, "strerror", None) or link
            subject = f"the study in {storage}" if _is_of_storage(link) else "standard output"
            verb = "used" if database else "written"
            return SearchFailed(
                f"{subject} cannot be {verb}: {' '.join(str(reason).split())}; remove the cause "
                "and run the same command again"
            )
        link = link.__cause__ or link.__context__
    if isinstance(err, Exception) and _is_of_storage(err):
        return SearchFailed(
            f"the study in {storage} cannot be used: {one_line(err)}; restore it, or give another "
            "--study or --storage"
        )
    return err


_PACKAGE = Path(__file__).resolve().parents[1]
# the modules of the storage
_OF_STORAGE = {part.__module__ for part in (DamagedJournal, open_storage, Undertaker)}


def _is_of_storage(err: BaseException) -> bool:
    """Tell whether Optuna or a module of the storage raised an exception, not another module."""
    ours = False
    for frame, _ in traceback.walk_tb(err.__traceback__):
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in ("optuna", "sqlalchemy") or name in _OF_STORAGE:
            ours = True
        elif _PACKAGE in Path(frame.f_code.co_filename).resolve().parents:
            ours = False
    return ours
