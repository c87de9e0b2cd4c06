"""Reading by format, beside the reader underneath: ``python -m benchmarks.reading [EVENTS ...]``.

For each number of synthetic events (default: 1, 5, 10, 50 million) and each format, `read_events`
and the library's reader alone (pandas' CSV parser, its unpickler, or pyarrow) read the same file,
taking turns, each time in a process of its own. Both read the three columns only. Times are
those of the processor, all threads together, which other processes disturb less than the clock's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks import options
from benchmarks.parts import output_of
from benchmarks.results import Results
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli

FORMATS = ("tsv", "tsv.gz", "csv", "pickle", "parquet", "feather")


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    options.add_sizes(parser)
    parser.add_argument(
        "--formats", metavar="NAME", nargs="+", choices=FORMATS, default=FORMATS,
        help=f"of {', '.join(FORMATS)} (default: all)",
    )  # fmt: skip
    options.add_rounds(parser, 3)
    options.add_directory(parser)
    options.add_json(parser)
    parser.add_argument("--child", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(*args.child)
        return
    results = Results(args)
    print("events      format    MB in file   reader, CPU s   read_events   of it   peak, MB")
    for n_events in args.events:
        with tempfile.TemporaryDirectory(dir=args.directory) as directory:
            tsv = Path(directory) / "events.tsv"
            from benchmarks.data import write_log

            write_log(str(tsv), n_events, args.items)
            for kind in args.formats:
                path = Path(directory) / f"events.{kind}"
                convert(tsv, path)
                compare(n_events, kind, path, args.rounds, results)
                if path != tsv:
                    path.unlink()


def compare(n_events: int, kind: str, path: Path, rounds: int, results: Results) -> None:
    """Print one line: the median of interleaved rounds."""
    seconds = {"reader": [], "read_events": []}
    peak = 0
    for _ in range(rounds):
        for reader, found in seconds.items():
            command = [sys.executable, "-m", "benchmarks.reading", "--child", reader, str(path)]
            taken, used = map(float, output_of(command).split())
            found.append(taken)
            peak = max(peak, used) if reader == "read_events" else peak
    alone, ours = (median(found) for found in seconds.values())
    print(
        f"{n_events:<11d} {kind:<9} {path.stat().st_size / 1e6:10.0f} {alone:15.2f} {ours:13.2f} "
        f"{100 * ours / alone:6.0f}% {peak / 1e6:10.0f}",
        flush=True,
    )
    results.add(events=n_events, format=kind, reader=alone, read_events=ours, peak=peak)


def convert(tsv: Path, path: Path) -> None:
    """Write a tab separated file in another format, as pandas does by default."""
    import pandas as pd

    kind = path.name.split(".", 1)[1]
    if kind == "tsv":
        return
    frame = pd.read_csv(tsv, sep="\t")
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "tsv.gz":
        fast = {"method": "gzip", "compresslevel": 3}
        frame.to_csv(path, sep="\t", index=False, compression=fast)
    else:
        getattr(frame, f"to_{kind}")(path)


def read_alone(path: str) -> object:
    """Read with the library that `read_events` stands on."""
    import pandas as pd

    columns = ["SessionId", "ItemId", "Time"]
    if path.endswith(".pickle"):
        return pd.read_pickle(path)
    # pandas would hand pyarrow a Python file, which now and then aborts the process at its exit
    # (apache/arrow issues 34314 and 50482)
    if path.endswith(".parquet"):
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path, columns=columns).to_pandas()
    if path.endswith(".feather"):
        import pyarrow.feather

        return pyarrow.feather.read_feather(path, columns=columns)
    return pd.read_csv(path, sep="," if path.endswith(".csv") else "\t", usecols=columns)


def measure(reader: str, path: str) -> None:
    """Print the seconds and the peak memory above what was in use before."""
    import resource

    import pyarrow.feather  # noqa: F401, importing it is no reading

    from benchmarks.data import resident
    from gru4rec_toolkit.data import events

    before = resident()
    began = time.process_time()
    data = events.read_events(path, announce=False) if reader == "read_events" else read_alone(path)
    seconds = time.process_time() - began
    assert len(data)
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


if __name__ == "__main__":
    run_cli(main)
