"""Tables in Markdown, as in ``benchmarks/README.md``, from the rows of `results.Results`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any, Dict

Row = Dict[str, Any]
MB = 1e6


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table."""
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def start(rows: list[Row]) -> list[str]:
    columns = ["cache", "to the first step, s", "on to the first metric, s", "whole run, s"]
    names = ["first_step", "to_metric", "whole", "own_cpu", "compilers_cpu"]
    return markdown(
        [*columns, "own CPU, s", "compilers' CPU, s"],
        ([row["cache"], *(seconds(row[name]) for name in names)] for row in rows),
    )


def training(rows: list[Row], others: Sequence[str] = ()) -> list[str]:
    columns = ["parameters", "mini-batch x units", "limit, mini-batches/s", "merged limit"]
    columns += ["training", "of the limit", "of the merged limit", "without merging"]
    columns += ["of the limit", *(c for name in others for c in (name, "of the limit"))]
    table = []
    for row in rows:
        cells = [row["parameters"], f"{row['batch_size']} x {row['units']}"]
        cells += [number(row["limit"]), number(row["merged_limit"]), number(row["training"])]
        cells += [share(row["training"], row[limit]) for limit in ("limit", "merged_limit")]
        for rates in (row["without_merging"], *row["others"]):
            cells += [number(rates), share(rates, row["limit"])]
        table.append(cells)
    return markdown(columns, table)


def modes(rows: list[Row]) -> list[str]:
    plain = rows[0]["microseconds"]
    return markdown(
        ["mode", "us a step", "of the plain step"],
        ([row["mode"], number(row["microseconds"]), factor(row["microseconds"], plain)]
         for row in rows),
    )  # fmt: skip


def threads(rows: list[Row]) -> list[str]:
    """Return the speedups of the best rounds: whoever loses its core for a while is no slower."""
    alone, *more = rows[0]["modelled"]
    columns = ["parameters", "mini-batch x units", f"{alone} thread, us a step"]
    columns += [f"{rows[0]['threads']} threads, measured", *(f"{n}, modelled" for n in more)]
    table = []
    for row in rows:
        modelled = row["modelled"]
        one, most = min(modelled[alone]), min(modelled[more[-1]])
        cells = [row["parameters"], f"{row['batch_size']} x {row['units']}", f"{1e6 * one:.0f}"]
        for several in (row["measured"], *(modelled[n] for n in more)):
            cells.append(f"{one / min(several):.2f}")
        table.append([*cells, f"{row['bytes'] / most / 1e9:.0f}"])
    return markdown([*columns, f"GB/s with {more[-1]}"], table)


def ranking(rows: list[Row]) -> list[str]:
    return markdown(
        ["items x units", "score product, events/s", "ranking", "of the product"],
        ([f"{row['items']:,} x {row['units']}", number(row["product"]), number(row["ranking"]),
          share(row["ranking"], row["product"])] for row in rows),
    )  # fmt: skip


STAGES = {
    "read": "read (.tsv)",
    "index": "index",
    "schedule": "schedule an epoch",
    "weights": "draw the weights",
    "training": "optimizer, store, first block",
}


def data(rows: list[Row]) -> list[str]:
    def cell(stage: Row) -> str:
        return f"{stage['seconds']:.1f} s, {stage['kept'] / MB:.0f}, {stage['peak'] / MB:.0f}"

    return markdown(
        ["events", *STAGES.values(), "mini-batches/s", "whole process, MB"],
        ([count(row["events"]), *(cell(row["stages"][name]) for name in STAGES),
          f"{row['speed']:.0f}", f"{row['peak'] / MB:.0f}"] for row in rows),
    )  # fmt: skip


def reading(rows: list[Row]) -> list[str]:
    """Return one row a format; ratio and peak are those of the largest log."""
    sizes = sorted({row["events"] for row in rows})
    found = {(row["format"], row["events"]): row for row in rows}
    table = []
    for name in dict.fromkeys(row["format"] for row in rows):
        of_format = [found.get((name, size)) for size in sizes]
        cells = [row and f"{row['reader']:.2f}, {row['read_events']:.2f}" for row in of_format]
        largest = [row for row in of_format if row][-1]
        ratio = f"{largest['read_events'] / largest['reader']:.0%}"
        table.append(
            [f".{name}", *(cell or "" for cell in cells), ratio, f"{largest['peak'] / MB:.0f}"]
        )
    events = [f"{count(sizes[0])}: reader, read_events", *map(count, sizes[1:])]
    return markdown(["format", *events, "of the reader", "peak, MB"], table)


def preprocessing(rows: list[Row]) -> list[str]:
    return markdown(
        ["data set", "raw rows", "raw, MB", "seconds", "of the processor", "ns a row", "peak, MB"],
        ([row["data_set"], count(row["rows"]), f"{row['raw'] / MB:.0f}", f"{row['seconds']:.1f}",
          f"{row['cpu_seconds']:.1f}", f"{1e9 * row['cpu_seconds'] / row['rows']:.0f}",
          f"{row['peak'] / MB:.0f}"] for row in rows),
    )  # fmt: skip


def printed(rows: list[Row]) -> list[str]:
    """Return a table of rows that are cells by column already."""
    return markdown([*rows[0]], (row.values() for row in rows))


TABLES: dict[str, Callable[..., list[str]]] = {
    "start": start,
    "training": training,
    "modes": modes,
    "ranking": ranking,
    "threads": threads,
    "data": data,
    "reading": reading,
    "preprocessing": preprocessing,
    "serving": printed,
    "gpu": printed,
}


# ---------------------------------------------------------------------------- cells


def count(n: int) -> str:
    """Return a number of rows in words."""
    return f"{n // 10**6} million" if n % 10**6 == 0 else f"{n:,}"


def number(rates: Sequence[float | None]) -> str:
    """Return the median; `failed` where a round has none."""
    return "failed" if None in rates else f"{median(rates):.0f}"


def ratios(rates: Sequence[float], limits: Sequence[float]) -> list[float]:
    """Return the ratio of each round."""
    return [rate / limit for rate, limit in zip(rates, limits)]


def share(rates: Sequence[float | None], limits: Sequence[float]) -> str:
    """Return the median of the rounds' ratios in percent, and in brackets the worst and best."""
    if None in rates:
        return ""
    found = ratios(rates, limits)
    return f"{median(found):.0%} ({100 * min(found):.0f} to {100 * max(found):.0f})"


def factor(times: Sequence[float], plain: Sequence[float]) -> str:
    """Return the median of the rounds' ratios of times, and in brackets the worst and best."""
    found = ratios(times, plain)
    return f"{median(found):.2f} ({max(found):.2f} to {min(found):.2f})"


def seconds(times: Sequence[float]) -> str:
    """Return the median, and in brackets the worst and the best."""
    return f"{median(times):.1f} ({max(times):.1f} to {min(times):.1f})"
