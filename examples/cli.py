"""What each data set's `preprocess.py` does: check the raw files, prepare, write, report."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile

import numpy as np

from examples.preprocessing import DataSet, Events
from examples.raw_files import check_raw_files
from user_errors import InputError, run_cli

ROWS_AT_ONCE = 1 << 20


def preprocess_cli(data_set: DataSet) -> None:
    """Run the command line of a data set's `preprocess.py`."""
    parser = argparse.ArgumentParser(
        description=f"Makes training, test and validation data of {data_set.name}'s raw files.",
        epilog=f"Raw files: {', '.join(file.name for file in data_set.files)}\n"
        f"from {data_set.home}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the address in one piece
    )
    parser.add_argument("raw_directory", metavar="RAW_DIRECTORY", help="where the raw files are")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIRECTORY",
        help="where to write (default: RAW_DIRECTORY)",
    )
    args = parser.parse_args()
    run_cli(lambda: preprocess(data_set, args.raw_directory, args.output))


def preprocess(data_set: DataSet, raw_directory: str, output: str | None = None) -> dict[str, str]:
    """Make the four files of a data set and print a table of what is in them.

    Parameters
    ----------
    data_set : DataSet
    raw_directory, output : str
        Where the raw files are, and where to write: at the same place by default.

    Returns
    -------
    dict of str to str
        Paths of train_full, test, train_tr and train_valid.

    Raises
    ------
    InputError
        The raw files cannot be used, or the output cannot be written. Nothing is written then.
    """
    output = raw_directory if output is None else output
    check_raw_files(raw_directory, data_set.files, data_set.home)
    _check_output(output)
    try:
        parts = data_set.prepare(raw_directory)
    except InputError as err:
        message = str(err)
        named = message.startswith(raw_directory)
        raise InputError(message if named else f"{raw_directory}: {message}") from None
    paths = {part: os.path.join(output, f"{data_set.name}_{part}.tsv") for part in parts}
    write_all({paths[part]: events for part, events in parts.items()})
    print(table(parts))
    for path in paths.values():
        print(path)
    return paths


def _check_output(directory: str) -> None:
    try:
        os.makedirs(directory, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as err:
        raise InputError(
            f"{directory}: cannot write there ({err.strerror or err}); name a writable directory "
            "with -o"
        ) from None


def write_all(events: dict[str, Events]) -> None:
    """Write tab separated files, all of them or none.

    Parameters
    ----------
    events : dict of str to Events
        By path.
    """
    from tqdm import tqdm

    total = sum(map(len, events.values()))
    finished = {}
    with contextlib.ExitStack() as cleaning, tqdm(
        total=total, desc="writing", unit=" events", unit_scale=True, disable=None
    ) as bar:
        for path, part in events.items():
            handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".part-")
            cleaning.callback(_remove, temporary)
            try:
                with open(handle, "wb") as stream:
                    for n in _write(stream, part):
                        bar.update(n)
            except OSError as err:
                raise InputError(
                    f"{path}: cannot be written ({err.strerror or err}); make room for the files "
                    "or name another directory with -o"
                ) from None
            finished[temporary] = path
        mask = os.umask(0)
        os.umask(mask)
        for temporary, path in finished.items():
            os.chmod(temporary, 0o666 & ~mask)  # mkstemp lets nobody else read it
            os.replace(temporary, path)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def _write(stream, events: Events):
    """Write one file, and give the number of events after each part."""
    import pyarrow as pa
    import pyarrow.csv

    options = pa.csv.WriteOptions(
        include_header=False, delimiter="\t", quoting_style="none", batch_size=1 << 16
    )
    stream.write(b"SessionId\tItemId\tTime\n")
    for start in range(0, len(events), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        time = events.time[rows]
        columns = {
            "SessionId": events.session_ids[events.session[rows]],
            "ItemId": events.item_ids[events.item[rows]],
            "Time": time / events.ticks if events.in_seconds else time,
        }
        pa.csv.write_csv(pa.table(columns), stream, options)
        yield len(time)


def table(parts: dict[str, Events]) -> str:
    """Say how many events, sessions, items and days each part has, and how long sessions are."""
    lines = [
        f"{'':<12}{'events':>12}{'sessions':>11}{'items':>9}{'days':>7}  {'first':<16}  "
        f"{'last':<16}{'mean':>7}{'median':>8}{'longest':>9}"
    ]
    for name, events in parts.items():
        if not len(events):
            lines.append(f"{name:<12}{0:>12}{0:>11}{0:>9}")
            continue
        lengths = np.bincount(events.session)
        lengths = lengths[lengths > 0]
        items = np.count_nonzero(np.bincount(events.item))
        first, last = int(events.time.min()), int(events.time.max())
        days = (last - first) / (86400 * events.ticks)
        dates = [
            str(np.datetime64(time // events.ticks, "s").astype("datetime64[m]")).replace("T", " ")
            for time in (first, last)
        ]
        lines.append(
            f"{name:<12}{len(events):>12}{len(lengths):>11}{items:>9}{days:>7.1f}  "
            f"{dates[0]:<16}  {dates[1]:<16}{lengths.mean():>7.2f}{np.median(lengths):>8.0f}"
            f"{lengths.max():>9}"
        )
    return "\n".join(lines)
