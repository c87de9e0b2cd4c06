"""Command line of each data set's `preprocess.py`: check the raw files, prepare, write, report."""

from __future__ import annotations

import argparse
import filecmp
import os
import tempfile
from collections.abc import Callable, Mapping

import numpy as np

from examples import options
from examples.preprocessing import DataSet, Events
from examples.raw_files import check_raw_files
from gru4rec_toolkit import arguments, files
from gru4rec_toolkit.errors import InputError, run_cli

ROWS_AT_ONCE = 1 << 20
HEADER = b"SessionId\tItemId\tTime\n"
PARTS = ("train_full", "test", "train_tr", "train_valid")


def preprocess_cli(data_set: DataSet) -> None:
    """Run the command line of a data set's `preprocess.py`."""
    parser = arguments.Parser(
        description=f"Makes training, test and validation data of {data_set.name}'s raw files.",
        epilog=f"Raw files: {', '.join(file.name for file in data_set.files)}\n"
        f"from {data_set.home}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the address in one piece
    )
    options.add_directories(parser)
    arguments.add_force(parser, help="replace files of the same names that differ")

    def main() -> None:
        args = parser.parse_args()
        preprocess(data_set, args.raw_directory, args.output, args.force)

    run_cli(main)


def preprocess(
    data_set: DataSet, raw_directory: str, output: str | None = None, force: bool = False
) -> dict[str, str]:
    """Make the four files of a data set and print a table of what is in them.

    Parameters
    ----------
    data_set : DataSet
    raw_directory, output : str
        Where the raw files are, and where to write: at the same place by default.
    force : bool
        Whether files of the same names are replaced. Files that are equal to the new ones are fine
        in any case.

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
    paths = output_paths(data_set, raw_directory, output)
    inputs = {
        f"the raw file {file.name}": os.path.join(raw_directory, file.name)
        for file in data_set.files
    }
    for path in paths.values():
        _check_replaceable(path, _has_our_header, inputs, force)
    try:
        parts = data_set.prepare(raw_directory)
    except InputError as err:
        message = str(err)
        named = message.startswith(raw_directory)
        raise InputError(message if named else f"{raw_directory}: {message}") from None
    write_all({paths[part]: events for part, events in parts.items()}, inputs, force)
    print(table(parts))
    for path in paths.values():
        print(path)
    return paths


def output_paths(
    data_set: DataSet, raw_directory: str, output: str | None = None
) -> dict[str, str]:
    """Return where `preprocess` writes, by part."""
    folder = raw_directory if output is None else output
    return {part: os.path.join(folder, f"{data_set.name}_{part}.tsv") for part in PARTS}


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


def _has_our_header(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(len(HEADER)) == HEADER


def _check_replaceable(
    path: str, is_ours: Callable[[str], bool], inputs: Mapping[str, str], force: bool
) -> None:
    try:
        reason = files.obstacle(path, "what is to be written", is_ours, inputs, force)
    except OSError as err:
        reason = f"it cannot be read ({err.strerror or err})"
    if reason is not None:
        advice = ", or --force to replace it" if reason.startswith("it exists") else ""
        raise InputError(f"{path}: {reason}; name another directory with -o{advice}")


def write_all(
    events: dict[str, Events], inputs: Mapping[str, str] | None = None, force: bool = False
) -> None:
    """Write tab separated files, all of them or none.

    Parameters
    ----------
    events : dict of str to Events
        By path.
    inputs : mapping of str to path, optional
        Files that must not be replaced, by what they are.
    force : bool
        Whether files with other content are replaced.

    Raises
    ------
    InputError
        If a file cannot be written, or must not be replaced.
    """
    from tqdm import tqdm

    total = sum(map(len, events.values()))
    path = ""
    try:
        with files.replacing_all(events) as streams, tqdm(
            total=total, desc="writing", unit=" events", unit_scale=True, disable=None
        ) as bar:
            for path, stream in zip(events, streams):
                for n in _write(stream, events[path]):
                    bar.update(n)
                stream.flush()
            for path, stream in zip(events, streams):
                written = stream.name

                def is_equal(path: str, written: str = written) -> bool:
                    return filecmp.cmp(path, written, shallow=False)

                _check_replaceable(path, is_equal, inputs or {}, force)
    except OSError as err:
        raise InputError(
            f"{path}: cannot be written ({err.strerror or err}); make room for the files "
            "or name another directory with -o"
        ) from None


def _write(stream, events: Events):
    """Write one file, and give the number of events after each part."""
    import pyarrow as pa
    import pyarrow.csv

    options = pa.csv.WriteOptions(
        include_header=False, delimiter="\t", quoting_style="none", batch_size=1 << 16
    )
    stream.write(HEADER)
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
    """Return a table of the parts: events, sessions, items, days, lengths of sessions."""
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
