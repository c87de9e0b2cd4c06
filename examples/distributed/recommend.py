"""Recommendations for a Parquet data set of any size, by workers on one or several machines.

The events are split by session first, then each part is given to a worker, which holds one loaded
model. Where a worker dies, the others do its part again.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import queue
import re
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gru4rec_toolkit import arguments, messages
from gru4rec_toolkit.errors import InputError, one_line, run_cli, shown
from gru4rec_toolkit.files import reason_of
from gru4rec_toolkit.machine import available_cores

if TYPE_CHECKING:
    import pandas as pd
    from gru4rec_parts import RowGroup

# events of a part, about, and at most of a piece of the input: a worker has one in memory
EVENTS_AT_ONCE = 1_000_000
# parts of a worker at least, so that none waits long for the last one
PARTS_OF_A_WORKER = 4
MOST_PARTS = 99_999
PART = re.compile(r"part-\d{5}\.parquet")
POLL_SECONDS = 0.5


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = arguments.Parser(
        description="Writes the best next items of the sessions in a Parquet data set, computed by "
        "Dask workers on this machine or on several."
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a saved model")
    add(
        "sessions",
        metavar="SESSIONS",
        help="events: a Parquet file, or a directory with .parquet files",
    )
    add(
        "output",
        metavar="OUT_DIR",
        help="directory of part-00000.parquet, part-00001.parquet...; it appears once all are done",
    )
    add("-k", metavar="K", type=int, default=20, help="items for each session (default: 20)")
    add("--exclude_seen", action="store_true", help="leave out the items of the session itself")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", metavar="N", type=int, help="processes on this machine (default: its cores)"
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="a running Dask scheduler, such as tcp://host:8786"
    )
    add(
        "--partitions",
        metavar="N",
        type=int,
        help="into how many parts the sessions are divided (default: one for each million events, "
        f"at least {PARTS_OF_A_WORKER} for each worker)",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=60,
        help="how long to wait for the scheduler, and while there is no worker (default: 60)",
    )
    arguments.add_columns(parser)
    arguments.add_force(parser, help="replace OUT_DIR if it holds nothing but such parts")
    return parser


def main() -> None:
    """Run the command line program.

    Raises
    ------
    InputError
        For every mistake that the user can correct, and where workers fail.
    """
    args = build_parser().parse_args()
    _check_numbers(args)
    if args.scheduler is None and args.workers is None:
        args.workers = available_cores()
    start = time.perf_counter()
    # workers have other working directories
    model_path, sessions = os.path.abspath(args.model), os.path.abspath(args.sessions)
    output = os.path.realpath(args.output)
    keys = _keys(model_path, args)
    groups = row_groups(sessions, keys)
    _check_output(output, args.force)
    _check_dask()
    # after the other checks: it takes seconds
    import dask.dataframe as dd
    import gru4rec_parts

    model = gru4rec_parts.Model.at(model_path)
    with _folder_beside(output) as folder, _client(args) as client:
        n_parts = args.partitions or _number_of_parts(
            groups, args.workers or len(client.nthreads())
        )
        workers = _Workers(client, args)
        events, parts = os.path.join(folder, "events"), os.path.join(folder, "parts")
        os.mkdir(events)
        os.mkdir(parts)
        # Not Dask's shuffle. It loses the order of the events, which decides between events at the
        # same time, and its pieces lie on the workers, so that a death begins it anew. These files
        # outlive the workers, and a worker has no more than one of them in memory.
        pieces = _pieces(groups, n_parts)
        written = dd.from_map(
            gru4rec_parts.split,
            range(len(pieces)),
            pieces,
            keys=keys,
            folder=events,
            n_parts=n_parts,
            meta=_no_rows("events"),
        )
        _compute(client, written, "Splitting", "files", workers)
        recommended = dd.from_map(
            gru4rec_parts.read_part,
            range(n_parts),
            folder=events,
            n_files=len(pieces),
            meta=_no_rows(*gru4rec_parts.COLUMNS),
        ).map_partitions(
            gru4rec_parts.write_part,
            folder=parts,
            model=model,
            k=args.k,
            exclude_seen=args.exclude_seen,
            meta=_no_rows("part", "sessions", "events", "unknown"),
            enforce_metadata=False,
        )
        found = _compute(client, recommended, "Recommending", "parts", workers)
        names = found.loc[found["sessions"] > 0, "part"]
        _keep({gru4rec_parts.part_path(parts, number) for number in names}, parts)
        _move(parts, output)
    n_unknown, n_events, n_sessions = (found[c].sum() for c in ("unknown", "events", "sessions"))
    if n_unknown:
        messages.show(
            f"{n_unknown} of {n_events} events are on items that the model does not know; they "
            "are skipped"
        )
    seconds = time.perf_counter() - start
    print(f"{n_sessions} sessions in {len(names)} parts took {seconds:.1f} s")
    print(f"Recommendations written to: {args.output}")


def _no_rows(*columns: str) -> pd.DataFrame:
    """Return an empty frame, from which Dask knows what comes, without a trial run."""
    import pandas as pd

    return pd.DataFrame({name: pd.Series(dtype="int64") for name in columns})


# ---------------------------------------------------------------------------- checks


def _check_numbers(args: argparse.Namespace) -> None:
    if args.k < 1:
        raise InputError(f"-k: expected 1 item or more, got {args.k}")
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers: expected 1 process or more, got {args.workers}")
    if args.partitions is not None and not 1 <= args.partitions <= MOST_PARTS:
        raise InputError(f"--partitions: expected 1 to {MOST_PARTS} parts, got {args.partitions}")
    if not 0 < args.timeout < 1e9:
        raise InputError(f"--timeout: expected a number of seconds, got {args.timeout}")


def _check_dask() -> None:
    try:
        import dask.dataframe  # noqa: F401
        import distributed  # noqa: F401
    except ImportError as err:
        raise InputError(
            'this needs Dask; install it with `pip install "dask[distributed]" pyarrow` '
            f"({one_line(err)})"
        ) from None


def _keys(model_path: str, args: argparse.Namespace) -> dict[str, str]:
    """Return the names of the columns by role: those that the model was trained with, or given."""
    from gru4rec_toolkit import modelfile
    from gru4rec_toolkit.data.checks import column_keys

    settings, _ = modelfile.read(model_path)
    settings.update(arguments.given_columns(args))
    names = (settings.get(f"{role}_key") for role in ("session", "item", "time"))
    return column_keys(*names)  # type: ignore[arg-type]  # it checks that they are names


def row_groups(path: str, keys: dict[str, str]) -> list[RowGroup]:
    """Return the row groups of a Parquet file, or of all in a directory, in the order of names.

    Raises
    ------
    InputError
        If there is none, a file is none, or columns are missing, of types that cannot be used, or
        of other types than in the file before.
    """
    from gru4rec_parts import RowGroup

    from gru4rec_toolkit.data.arrow import import_pyarrow
    from gru4rec_toolkit.data.checks import check_columns
    from gru4rec_toolkit.errors import check_regular

    pa = import_pyarrow(f"{path}: reading Parquet files")
    groups = []
    before: dict[str, tuple[str, str]] = {}
    for name in _parquet_files(path):
        check_regular(name)
        try:
            with pa.parquet.ParquetFile(name) as file:
                schema, metadata = file.schema_arrow, file.metadata
        except Exception as err:  # pyarrow can raise anything about a damaged file
            raise InputError(
                f"{name}: cannot be read as a Parquet file ({one_line(err)}); the file may be cut "
                "short or be of another kind, save it again"
            ) from None
        check_columns(schema.names, keys, name)
        for role in ("session", "item"):
            kind = _kind_of_ids(schema.field(keys[role]).type)
            if kind is None:
                raise InputError(
                    f'{name}: column "{keys[role]}" is of the type '
                    f"{schema.field(keys[role]).type}, expected integers or text; save it again "
                    "with ids of these"
                )
            other, first = before.setdefault(role, (kind, name))
            if kind != other:
                raise InputError(
                    f'{name}: column "{keys[role]}" holds {kind}, but {other} in {first}; save '
                    "them again with the same types"
                )
        row = 0
        for number in range(metadata.num_row_groups):
            n_rows = metadata.row_group(number).num_rows
            if n_rows:
                groups.append(RowGroup(name, number, row, n_rows))
            row += n_rows
    if not groups:
        raise InputError(f"{path}: there are no events in it; expected one row an event")
    return groups


def _parquet_files(path: str) -> list[str]:
    try:
        if not os.path.isdir(path):
            os.stat(path)
            return [path]
        names = sorted(name for name in os.listdir(path) if name.lower().endswith(".parquet"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the path") from None
    except (OSError, ValueError) as err:
        raise InputError(f"{path}: cannot be read ({one_line(err)}); check the path") from None
    if not names:
        raise InputError(
            f"{path}: no file in this directory ends in .parquet; give a Parquet file, or a "
            "directory that holds some"
        )
    return [os.path.join(path, name) for name in names]


def _kind_of_ids(kind: Any) -> str | None:
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return "integers"
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    # strings in pyarrow's types: string, large_string, string_view
    return "text" if "string" in str(kind) and not pa.types.is_nested(kind) else None


def _number_of_parts(groups: list[RowGroup], n_workers: int) -> int:
    n_events = sum(group.n_rows for group in groups)
    n_parts = max(-(-n_events // EVENTS_AT_ONCE), PARTS_OF_A_WORKER * n_workers)
    return min(n_parts, MOST_PARTS)


def _pieces(groups: list[RowGroup], n_parts: int) -> list[list[RowGroup]]:
    """Return the row groups in pieces that are as large as a part, where the groups are small."""
    size = min(sum(group.n_rows for group in groups) / n_parts, EVENTS_AT_ONCE)
    pieces: list[list[RowGroup]] = []
    in_last = size
    for group in groups:
        if in_last + group.n_rows > size:
            pieces.append([])
            in_last = 0
        pieces[-1].append(group)
        in_last += group.n_rows
    return pieces


# ---------------------------------------------------------------------------- output


def _check_output(output: str, force: bool) -> None:
    """Raise an InputError if something stands in the output's place that is not to be replaced."""
    from gru4rec_toolkit import tablefile

    refusal = f"cannot write recommendations to {output}: "
    if not os.path.lexists(output):
        return
    try:
        names = os.listdir(output)
    except NotADirectoryError:
        raise InputError(f"{refusal}it is no directory; give another path") from None
    except OSError as err:
        raise InputError(f"{refusal}{err.strerror}; give another path") from None
    for name in names:
        path = os.path.join(output, name)
        is_part = PART.fullmatch(name) and os.path.isfile(path) and not os.path.islink(path)
        if not is_part or not tablefile.is_one(tablefile.RECOMMENDATIONS, path):
            raise InputError(
                f"{refusal}it holds {shown(name)}, which is no part of recommendations; give "
                "another path"
            )
    if names and not force:
        raise InputError(
            f"{refusal}it holds recommendations already; give another path, or --force to replace "
            "them"
        )


@contextlib.contextmanager
def _folder_beside(output: str) -> Iterator[str]:
    """Make a directory for what is not ready; it goes away at the end, whatever happens."""
    folder = os.path.join(
        os.path.dirname(output), f".{os.path.basename(output)}-{secrets.token_hex(4)}.partial"
    )
    try:
        try:
            os.mkdir(folder)
        except (OSError, ValueError) as err:
            raise InputError(
                f"cannot write recommendations to {output}: {reason_of(err)}; give a path in an "
                "existing, writable directory"
            ) from None
        yield folder
    finally:
        for _ in range(3):  # a worker that has not heard of the end may write meanwhile
            shutil.rmtree(folder, ignore_errors=True)


def _keep(paths: set[str], folder: str) -> None:
    """Make sure that all these files are in a folder, and nothing else."""
    there = {os.path.join(folder, name) for name in os.listdir(folder)}
    missing = sorted(paths - there)
    if missing:
        raise InputError(
            f"{missing[0]}: a worker has written it, but it is not there; all machines need a file "
            "system in common, with the output under the same path"
        )
    for path in there - paths:  # what a worker had half written when it died
        os.remove(path)


def _move(parts: str, output: str) -> None:
    """Put the directory in its place, where old parts may be."""
    old = f"{os.path.dirname(parts)}/old"
    try:
        if os.path.isdir(output):  # others may have written there meanwhile
            _check_output(output, force=True)
            os.rename(output, old)
        try:
            os.rename(parts, output)
        except OSError:
            if os.path.isdir(old):
                os.rename(old, output)
            raise
    except OSError as err:
        raise InputError(
            f"cannot write recommendations to {output}: {reason_of(err)}; give another path"
        ) from None


# ---------------------------------------------------------------------------- workers


@contextlib.contextmanager
def _client(args: argparse.Namespace) -> Iterator[Any]:
    """Connect with the scheduler that is named, or start one with workers on this machine."""
    import distributed
    import gru4rec_parts

    # their tracebacks; what users need is in the errors
    for name in ("distributed", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as cleaning:
        try:
            address = args.scheduler or cleaning.enter_context(_local_workers(args.workers))
            client = cleaning.enter_context(distributed.Client(address, timeout=args.timeout))
        except Exception as err:  # Dask raises anything
            if args.scheduler is None:
                raise InputError(f"Dask cannot start workers here ({one_line(err)})") from None
            raise InputError(
                f"--scheduler {args.scheduler}: cannot be reached within {args.timeout:g} seconds "
                f"({one_line(err)}); start one with `dask scheduler`, and give the address that it "
                "prints"
            ) from None
        try:
            client.wait_for_workers(args.workers or 1, timeout=args.timeout)
        except distributed.TimeoutError:
            raise InputError(_no_workers(args)) from None
        if args.scheduler is not None:
            client.upload_file(gru4rec_parts.__file__)
        yield client


@contextlib.contextmanager
def _local_workers(n_workers: int) -> Iterator[Any]:
    """Start a scheduler and workers, one thread each, on this machine alone."""
    import distributed

    # Dask gives OPENBLAS_NUM_THREADS=1 to a worker, which would count before the user's
    # OMP_NUM_THREADS
    os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    # Workers inherit what is blocked here: Ctrl-C in a terminal reaches all of its processes, and
    # this one ends the others. Python's tracker would unblock it where it starts.
    # It would also complain about what belonged to a worker that was killed, which it removes.
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    resource_tracker.ensure_running()
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        cluster = distributed.LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # nothing could be spilled: what waits is on the disk
            # no dashboard; what the scheduler serves beside it takes any free port
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
    try:
        cluster.scale(n_workers)
        yield cluster
    finally:
        cluster.close()


def _no_workers(args: argparse.Namespace) -> str:
    if args.scheduler is None:
        return f"no worker could be started for {args.timeout:g} seconds; give a longer --timeout"
    return (
        f"--scheduler {args.scheduler}: no worker was there for {args.timeout:g} seconds; start "
        f"some with `dask worker {args.scheduler}`"
    )


def _compute(client: Any, frame: Any, what: str, unit: str, workers: _Workers) -> Any:
    """Return the rows of a Dask frame, a partition of which is one row."""
    import distributed
    import pandas as pd

    from gru4rec_toolkit.progress import progress_bar

    done: queue.SimpleQueue = queue.SimpleQueue()
    futures = distributed.futures_of(client.persist(frame))
    for future in futures:
        future.add_done_callback(done.put)
    n_left = len(futures)
    # a result that is here already must not be computed again when its worker dies
    del futures, frame, future
    rows = []
    with progress_bar(n_left, what, unit) as bar:
        while n_left:
            workers.look()
            with contextlib.suppress(queue.Empty):
                future = done.get(timeout=POLL_SECONDS)
                rows.append(_result(future))
                n_left -= 1
                bar.update()
                del future
    return pd.concat(rows)


def _result(future: Any) -> Any:
    """Return what a task has returned; raise an InputError that says why it failed."""
    import distributed

    try:
        return future.result()
    except InputError as err:
        raise InputError(err) from None
    except distributed.KilledWorker as err:
        raise InputError(
            f"the workers died again and again, {err.last_worker.address} at last, at one and the "
            "same piece of work; their logs may say why: if they need more memory than there is, "
            "give more --partitions or fewer workers a machine"
        ) from None
    except ModuleNotFoundError as err:
        raise InputError(
            f"a worker cannot work ({one_line(err)}); install this project and the same packages "
            "on all machines, for workers and scheduler alike"
        ) from None
    except Exception as err:  # of anything that runs in a worker, or between here and there
        raise InputError(f"a worker failed ({one_line(err)}); its log says more") from None


class _Workers:
    """The workers as they come and go; says who has gone, and when none is left for long."""

    def __init__(self, client: Any, args: argparse.Namespace) -> None:
        self.client, self.args = client, args
        self.known = set(client.nthreads())
        self.last_look = self.last_seen = time.monotonic()

    def look(self) -> None:
        now = time.monotonic()
        if now < self.last_look + POLL_SECONDS:
            return
        self.last_look = now
        try:
            present = set(self.client.nthreads())
        except Exception as err:  # Dask raises anything
            raise InputError(
                f"the scheduler has gone ({one_line(err)}); start it and give the command again"
            ) from None
        for address in sorted(self.known - present):
            messages.show(f"the worker {address} has gone; others do again what it had begun")
        self.known = present
        if present:
            self.last_seen = now
        elif now > self.last_seen + self.args.timeout:
            raise InputError(_no_workers(self.args))


if __name__ == "__main__":
    # else what is not ready would stay behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run_cli(main)
