"""Whether two models differ, and where a model does well, from the ranks of the targets.

Ranks are tables as `evaluation.ranks` returns them, or as pandas reads them from the files of
``run.py --ranks``: one row an event, with the columns of `tablefile.RANKS`. Nothing here needs a
model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from gru4rec_toolkit import parameters
from gru4rec_toolkit.data import ids
from gru4rec_toolkit.errors import InputError, shown
from gru4rec_toolkit.progress import progress_bar
from gru4rec_toolkit.tablefile import RANKS

METRICS = ("Recall", "MRR", "NDCG")
# cells of a block of resamples, each a float64 and two integers
CELLS = 1 << 20
# a sum that differs from another by this share of its terms differs by rounding
ROUNDING = 1e-12


def gains(rank: np.ndarray, n: int) -> np.ndarray:
    """Return what each event adds to Recall@n, MRR@n and NDCG@n.

    With one relevant item the ideal DCG is 1, so NDCG@n is the discount of the item's rank
    (Järvelin and Kekäläinen, ACM TOIS 2002).

    Parameters
    ----------
    rank : (n_events,) array
        1 or more; halves occur in the median mode.
    n : int
        List length.

    Returns
    -------
    (3, n_events) float64 array
        1, 1 / rank and 1 / log2(1 + rank) where rank <= n, and 0 elsewhere.
    """
    hits = rank <= n
    return np.stack([hits.astype(np.float64), hits / rank, hits / np.log2(1 + rank)])


# ---------------------------------------------------------------------------- two models


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    cut_off: int | Sequence[int] = 20,
    n: int = 10_000,
    seed: int = 42,
    level: float = 0.95,
) -> pd.DataFrame:
    """Compare two models by their ranks of the same test events.

    Events of a session depend on each other, so both methods take sessions as their units.

    - The interval of a - b comes from the paired bootstrap: sessions are drawn with replacement, a
      metric of a resample is its sum over their events by their number, and the ends of the
      interval are percentiles of the resamples' differences (Efron and Tibshirani, An Introduction
      to the Bootstrap, 1993, section 13.3).
    - The p value, two-sided, comes from the randomisation test of Fisher (The Design of
      Experiments, 1935) and Pitman (1937): if the models were equally good, the two could swap
      their ranks in any session. It is (1 + the number of random swaps whose difference is as
      large as the observed one) / (1 + n). Smucker, Allan and Carterette (CIKM 2007) compare it
      with other tests of retrieval; the ones are those of Phipson and Smyth (2010).

    Parameters
    ----------
    a, b : DataFrame
        Ranks of two models for the same events in the same order.
    cut_off : int or sequence of int
        List lengths N.
    n : int
        Resamples of the bootstrap, and random swaps.
    seed : int
        The same seed gives the same result.
    level : float
        Confidence that the interval covers the difference, for each metric by itself.

    Returns
    -------
    DataFrame
        A row for each of Recall@N, MRR@N and NDCG@N, with the columns ``a``, ``b`` (the models'
        metrics), ``difference`` (a - b), ``low``, ``high`` (the ends of its interval) and
        ``p_value``.

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        If a table is none of ranks, the two are of different events, there is only one session, or
        a parameter is wrong.

    Notes
    -----
    Memory is bounded by the events, whatever n is. The random numbers take the time: n times the
    number of sessions of them, twice.
    """
    lengths, n, seed, level = parameters.check_arguments(
        cut_off=cut_off, n=n, seed=seed, level=level
    )
    _check_ranks(a, "a")
    _check_ranks(b, "b")
    _check_same_events(a, b)
    codes = pd.factorize(a["SessionId"])[0]
    n_events = np.bincount(codes)  # (n_sessions,)
    if len(n_events) < 2:
        raise InputError("a and b: expected ranks of two or more sessions, got one session")
    sums_a, sums_b = (_sums_by_session(ranks, codes, lengths) for ranks in (a, b))
    differences = sums_a - sums_b  # (n_sessions, 3 * number of list lengths)
    bootstrap_rng, swap_rng = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(2))
    ends = [(1 - level) / 2, (1 + level) / 2]
    with progress_bar(2 * n, "Comparison", unit=" resamples") as progress:
        resampled = _bootstrap(differences, n_events, n, bootstrap_rng, progress)
        p_values = _p_values(differences, n, swap_rng, progress)
    low, high = np.quantile(resampled, ends, axis=0)
    found = {
        "a": sums_a.sum(axis=0) / len(a),
        "b": sums_b.sum(axis=0) / len(a),
        "difference": differences.sum(axis=0) / len(a),
        "low": low,
        "high": high,
        "p_value": p_values,
    }
    return pd.DataFrame(found, index=[f"{name}@{length}" for length in lengths for name in METRICS])


def _sums_by_session(ranks: pd.DataFrame, codes: np.ndarray, lengths: list[int]) -> np.ndarray:
    """Return each session's sums (n_sessions, 3 * number of list lengths) of `gains`."""
    rank = ranks["Rank"].to_numpy(dtype=np.float64)
    rows = [np.bincount(codes, weights) for length in lengths for weights in gains(rank, length)]
    return np.stack(rows, axis=1)


def _blocks(n: int, n_sessions: int) -> Iterator[int]:
    """Divide n resamples into blocks of at most `CELLS` sessions."""
    at_once = max(1, CELLS // n_sessions)
    for start in range(0, n, at_once):
        yield min(at_once, n - start)


def _bootstrap(
    differences: np.ndarray, n_events: np.ndarray, n: int, rng: np.random.Generator, progress
) -> np.ndarray:
    """Return the mean differences (n, k) of n resamples of sessions, given their sums (S, k)."""
    n_sessions, k = differences.shape
    sums = np.column_stack([differences, n_events])
    means = []
    for rows in _blocks(n, n_sessions):
        drawn = rng.integers(0, n_sessions, (rows, n_sessions))
        drawn += np.arange(0, rows * n_sessions, n_sessions)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n_sessions)
        resampled = counts.reshape(rows, n_sessions) @ sums
        means.append(resampled[:, :k] / resampled[:, k:])
        progress.update(rows)
    return np.concatenate(means)


def _p_values(differences: np.ndarray, n: int, rng: np.random.Generator, progress) -> np.ndarray:
    """Return the p values (k,) of differences' sums by session (S, k), of n random swaps."""
    differences = differences[differences.any(axis=1)]  # a swap of equal ranks changes nothing
    if len(differences) == 0:
        return np.ones(differences.shape[1])
    observed = differences.sum(axis=0)
    least = np.abs(observed) - ROUNDING * np.abs(differences).sum(axis=0)
    n_as_large = np.zeros(len(observed), dtype=np.int64)
    n_words = -(-len(differences) // 64)
    for rows in _blocks(n, len(differences)):
        words = rng.integers(0, 2**64, (rows, n_words), dtype=np.uint64)
        swapped = np.unpackbits(words.view(np.uint8), axis=1)[:, : len(differences)]
        # a swap changes the sign of a session's difference
        sums = observed - 2 * (swapped.astype(np.float64) @ differences)
        n_as_large += (np.abs(sums) >= least).sum(axis=0)
        progress.update(rows)
    return (1 + n_as_large) / (1 + n)


# ---------------------------------------------------------------------------- groups of events


def breakdown(
    ranks: pd.DataFrame,
    by: str,
    support: pd.Series | Mapping | None = None,
    cut_off: int = 20,
    groups: int = 10,
) -> pd.DataFrame:
    """Divide test events into groups and measure each of them.

    Parameters
    ----------
    ranks : DataFrame
    by : str
        - length: number of events of the session
        - position: position of the target in its session; the first that is predicted has 2
        - popularity: support of the target, in quantiles of all items' support
    support : Series or mapping of item id to number of events
        Of the training's items, as in ``train.ItemId.value_counts()`` or
        ``pd.Series(gru.support, gru.item_ids)``; needed for popularity only.
    cut_off : int
        List length.
    groups : int
        Most groups. Lengths and positions have one each, and the last takes all that are larger.
        Quantiles are as many groups of about as many items; items of the same support are in one
        group, and groups without a test event are left out.

    Returns
    -------
    DataFrame
        A row a group, in ascending order: ``low`` and ``high`` (smallest and largest length,
        position or support in the group), ``events``, ``recall``, ``mrr`` and ``ndcg``.

    Raises
    ------
    gru4rec_toolkit.errors.InputError
        If the table is none of ranks, the support is missing or lacks a target, or a parameter is
        wrong.
    """
    by, (length, *others), groups = parameters.check_arguments(
        by=by, cut_off=cut_off, groups=groups
    )
    if others:
        raise InputError(f"cut_off: expected one list length, got {shown(cut_off)}")
    _check_ranks(ranks, "ranks")
    if by == "popularity":
        values, uppers = _popularity(ranks, support, groups)
    else:
        values = ranks["Position"].to_numpy(dtype=np.int64)
        if by == "length":
            # what its last target is; a history that a session goes on from counts
            codes, ids = pd.factorize(ranks["SessionId"])
            lengths = np.zeros(len(ids), dtype=np.int64)
            np.maximum.at(lengths, codes, values)
            values = lengths[codes]
        uppers = np.unique(values)[: groups - 1]
    code = np.searchsorted(uppers, values)
    found = pd.DataFrame({"code": code, "value": values})
    found[["recall", "mrr", "ndcg"]] = gains(ranks["Rank"].to_numpy(dtype=np.float64), length).T
    by_group = found.groupby("code")
    table = by_group["value"].agg(low="min", high="max", events="size")
    return table.join(by_group[["recall", "mrr", "ndcg"]].mean()).reset_index(drop=True)


def _popularity(ranks: pd.DataFrame, support, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets' support, and the largest support of each group of items but the last."""
    if support is None:
        raise InputError(
            "support: popularity needs the items' numbers of events in the training, such as "
            "train.ItemId.value_counts()"
        )
    if not isinstance(support, (pd.Series, Mapping)):
        raise InputError(
            "support: expected numbers of events by item id, such as train.ItemId.value_counts(), "
            f"got {type(support).__name__}"
        )
    series = pd.Series(support)
    if series.dtype.kind not in "iu" or len(series) == 0:
        raise InputError(
            f"support: expected whole numbers, one an item, got {series.dtype} ({len(series)})"
        )
    item_ids, counts = ids.canonical_ids(series.index), series.to_numpy()
    if not pd.Index(item_ids).is_unique:
        raise InputError("support: an item is in it twice; give one number of events an item")
    found = ids.item_indices(item_ids, ranks["ItemId"])
    if (found < 0).any():
        unknown = ranks["ItemId"].tolist()[int(np.argmax(found < 0))]
        raise InputError(
            f"support: item {shown(unknown)} of the ranks is not in it; give the support of the "
            "training that the ranks come from"
        )
    at = -(-np.arange(1, groups) * len(counts) // groups) - 1
    return counts[found], np.unique(np.sort(counts)[np.maximum(at, 0)])


# ---------------------------------------------------------------------------- checks


def _check_ranks(ranks: object, name: str) -> None:
    """Raise an InputError unless an object is a table of ranks."""
    expected = f"{name}: expected a table of evaluation.ranks, or one read from a --ranks file"
    if not isinstance(ranks, pd.DataFrame):
        raise InputError(f"{expected}, got {type(ranks).__name__}")
    missing = [column for column in RANKS.columns if column not in ranks.columns]
    if missing:
        raise InputError(f'{expected}, got one without the column "{missing[0]}"')
    if len(ranks) == 0:
        raise InputError(f"{expected}, got one without rows")
    for column in ("SessionId", "Position", "ItemId", "Rank"):
        if ranks[column].isna().any():
            raise InputError(f'{name}: column "{column}" has missing values')
    for column, kinds in (("Position", "iu"), ("Rank", "iuf")):
        values = ranks[column]
        if values.dtype.kind not in kinds or (values < 1).any():
            raise InputError(f'{name}: column "{column}" has to hold numbers of 1 or more')


def _check_same_events(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Raise an InputError unless two tables rank the same targets, in the same order."""
    advice = (
        "evaluate both models on the same test data, without the items that only one of them knows"
    )
    if len(a) != len(b):
        raise InputError(
            f"a and b: expected ranks of the same events, got {len(a)} and {len(b)}; {advice}"
        )
    for column in ("SessionId", "Position", "ItemId"):
        left, right = (ids.canonical_ids(ranks[column].to_numpy()) for ranks in (a, b))
        if left.dtype != right.dtype:
            left, right = left.astype(str), right.astype(str)
        differs = left != right
        if differs.any():
            row = int(np.argmax(differs))
            in_a, in_b = (shown(ids_[[row]].tolist()[0]) for ids_ in (left, right))
            raise InputError(
                f"a and b: expected ranks of the same events, but in row {row} {column} is {in_a} "
                f"in a and {in_b} in b; {advice}"
            )
