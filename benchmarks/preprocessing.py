"""Time and memory of preprocessing: ``python -m benchmarks.preprocessing [ROWS ...]``.

For each number of rows (default: 1, 5, 10, 50 million) raw files are made up in the formats of
yoochoose and rees46, and each data set's `preprocess.py` is run on them in a process of its own,
whose time, processor time (which other processes disturb less) and peak memory are printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import options
from benchmarks.results import Results
from gru4rec_toolkit import arguments
from gru4rec_toolkit.errors import run_cli

ROOT = Path(__file__).resolve().parents[1]
PART = 1_000_000


def main() -> None:
    parser = arguments.Parser(description=__doc__.split("\n")[0])
    sizes = options.SIZES
    parser.add_argument(
        "rows", nargs="*", type=options.positive, default=sizes, help="numbers of raw rows"
    )
    parser.add_argument(
        "--data-sets", metavar="NAME", nargs="+", choices=list(WRITERS), default=list(WRITERS),
        help=f"of {', '.join(WRITERS)} (default: all)",
    )  # fmt: skip
    options.add_directory(parser)
    options.add_json(parser)
    args = parser.parse_args()
    results = Results(args)
    print("data set     rows         raw, MB   seconds   CPU s   ns a row   peak, MB   bytes a row")
    for name in args.data_sets:
        for n_rows in args.rows:
            with tempfile.TemporaryDirectory(dir=args.directory) as directory:
                WRITERS[name](Path(directory), n_rows)
                size = sum(file.stat().st_size for file in Path(directory).iterdir())
                seconds, cpu, peak = run(name, directory)
            print(
                f"{name:<12} {n_rows:<11d} {size / 1e6:8.0f} {seconds:9.1f} {cpu:7.1f} "
                f"{1e9 * cpu / n_rows:10.0f} {peak / 1e6:10.0f} {peak / n_rows:13.0f}",
                flush=True,
            )
            results.add(
                data_set=name, rows=n_rows, raw=size, seconds=seconds, cpu_seconds=cpu, peak=peak
            )


def run(name: str, directory: str) -> tuple[float, float, int]:
    """Run a preprocessing script; give its seconds, those of the processor, and its peak bytes."""
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, ROOT / "examples" / name / "preprocess.py", directory],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status) if sys.version_info >= (3, 9) else status
    if child.returncode:
        sys.exit(f"{name}'s preprocess.py failed with exit code {child.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - began, cpu, usage.ru_maxrss * 1024


def write_yoochoose(directory: Path, n_rows: int) -> None:
    """Write the challenge's two files: a quarter of the clicks are the test sessions'."""
    import pyarrow as pa

    def columns(log, times, rng) -> dict:
        return {
            "session": log["SessionId"].to_numpy(),
            "time": _text(times, "%Y-%m-%dT%H:%M:%S.277Z"),
            "item": log["ItemId"].to_numpy() + 214_500_000,
            "category": pa.repeat("0", len(log)),
        }

    span = 1_396_310_400, 1_412_035_200  # 2014-04-01 to 2014-09-30
    n_test = n_rows // 4
    _write(directory / "yoochoose-clicks.dat", n_rows - n_test, 52_000, span, columns, 1, "")
    _write(directory / "yoochoose-test.dat", n_test, 52_000, span, columns, n_rows, "")


def write_rees46(directory: Path, n_rows: int) -> None:
    """Write two months: a user for every 20 events, 19 of 20 events are views."""
    import pyarrow as pa
    import pyarrow.compute

    def columns(log, times, rng) -> dict:
        n_users = n_rows // 20 + 1
        n = len(log)
        sessions = log["SessionId"].to_numpy()
        # a session's user is a hash of it
        users = (sessions * 2_654_435_761) % n_users + 500_000_000
        kinds = pa.compute.if_else(pa.array(rng.random(n) < 0.05), "cart", "view")
        return {
            "event_time": _text(times, "%Y-%m-%d %H:%M:%S UTC"),
            "event_type": kinds,
            "product_id": log["ItemId"].to_numpy() * 499 + 1_000_000,
            "category_id": np.full(n, 2_053_013_555_631_882_655),
            "category_code": pa.repeat("electronics.smartphone", n),
            "brand": pa.repeat("samsung", n),
            "price": np.round(rng.random(n) * 900, 2),
            "user_id": users,
            "user_session": pa.repeat("72d76fde-8bb3-4e00-8c23-a032dfe738bb", n),
        }

    header = (
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,"
        "user_session\n"
    )
    october, november, end = 1_569_888_000, 1_572_566_400, 1_575_158_400
    half = n_rows // 2
    _write(directory / "2019-Oct.csv", half, 200_000, (october, november), columns, 1, header)
    _write(
        directory / "2019-Nov.csv", n_rows - half, 200_000, (november, end), columns, half, header
    )


WRITERS = {"yoochoose": write_yoochoose, "rees46": write_rees46}


def _text(times: np.ndarray, pattern: str):
    """Write seconds as text; each second once, for many events share it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    seconds, codes = np.unique(times, return_inverse=True)
    return pc.strftime(pa.array(seconds, pa.timestamp("s")), pattern).take(pa.array(codes))


def _write(
    path: Path,
    n_rows: int,
    n_items: int,
    span: tuple[int, int],
    columns: Callable,
    first_session: int,
    header: str,
) -> None:
    """Write rows part by part, with times that ascend over the span."""
    import pyarrow as pa
    import pyarrow.csv

    from benchmarks.training import synthetic_log

    options = pa.csv.WriteOptions(include_header=False, quoting_style="none", batch_size=1 << 16)
    with path.open("wb") as stream:
        stream.write(header.encode())
        for start in range(0, n_rows, PART):
            n = min(PART, n_rows - start)
            log = synthetic_log(n, n_items, seed=start + first_session)
            log["SessionId"] += first_session
            first_session = int(log["SessionId"].iloc[-1]) + 1
            rows = start + np.arange(n)
            times = span[0] + (rows * ((span[1] - span[0]) / n_rows)).astype(np.int64)
            table = pa.table(columns(log, times, np.random.default_rng(start)))
            pa.csv.write_csv(table, stream, options)


if __name__ == "__main__":
    run_cli(main)
