"""The best items of sessions: one by one, in batches, as a brute-force ranking of all scores.

This file runs here, and in processes of their own where items are ranked in other ways.
"""

from __future__ import annotations

import logging
import threading
import zlib

import numpy as np
import pandas as pd
import pytest
from helpers.on_gpu import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec import GRU4Rec, Network
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model import weights
from gru4rec_toolkit.ops.base import activate, usable
from gru4rec_toolkit.serving import batch, session, topk
from gru4rec_toolkit.theano_setup import theano

N_ITEMS = 300
XE = {"loss": "cross-entropy", "final_act": "softmax"}
MODELS = {
    "shared": {**XE, "constrained_embedding": True},
    "separate, two layers": {**XE, "embedding": 6, "layers": [7, 5]},
    "one-hot": {"final_act": "linear"},
    "logit": {"loss": "xe_logit", "final_act": "softmax_logit", "hidden_act": "relu"},
    "elu": {"final_act": "elu-0.5", "constrained_embedding": True},
    "relu": {"final_act": "relu", "hidden_act": "linear"},
    "tanh": {"loss": "top1", "final_act": "tanh", "embedding": "layersize"},
    "leaky": {"loss": "bpr", "final_act": "leaky-0.1", "hidden_act": "selu-1-1"},
}


def random_model(name: str, item_ids: np.ndarray | None = None) -> GRU4Rec:
    """Return a model of random weights in which many items have the same row."""
    rng = np.random.default_rng(0)
    gru = GRU4Rec(**{"layers": [8], **MODELS[name]})
    arrays = weights.initial(gru.settings, N_ITEMS)
    for array in arrays.values():
        array[:] = rng.normal(0, 0.5, array.shape)
    same = rng.integers(0, N_ITEMS // 2, N_ITEMS)
    arrays["Wy"][:], arrays["By"][:] = arrays["Wy"][same], arrays["By"][same]
    ids = np.arange(1000, 1000 + N_ITEMS) if item_ids is None else item_ids
    gru.take(Network(gru.settings, arrays), ids, rng.integers(1, 20, N_ITEMS))
    return gru


@pytest.fixture(scope="module", params=MODELS)
def gru(request) -> GRU4Rec:
    return random_model(request.param)


@pytest.fixture(scope="module")
def one() -> GRU4Rec:
    return random_model("shared")


def scores_of(gru: GRU4Rec, events: list) -> np.ndarray:
    """Return the scores (n_items,) that the model ranks by after some events, in numpy."""
    w, p = {name: array.astype(np.float64) for name, array in gru.weights().items()}, gru.settings
    states = [np.zeros(n) for n in p.layers]
    table = w["Wy"] if p.constrained_embedding else w.get("E", w["Wx0"])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for item in events:
        x = table[item - 1000]
        for i, h in enumerate(states):
            n = len(h)
            v = x if i == 0 and table is w["Wx0"] else x @ w[f"Wx{i}"]
            v = v + w[f"Bh{i}"]
            rz = sigmoid(v[n:] + h @ w[f"Wrz{i}"])
            candidate, _ = activate(p.hidden_act, v[:n] + (h * rz[:n]) @ w[f"Wh{i}"])
            states[i] = x = (1 - rz[n:]) * h + rz[n:] * candidate
    scores = w["Wy"] @ states[-1] + w["By"][:, 0]
    return activate("linear" if "softmax" in p.final_act else p.final_act, scores)[0]


def check_list(gru: GRU4Rec, events: list, found, scores, k: int, seen: bool, among) -> None:
    """Check one list of recommended items against all scores."""
    known = [item for item in events if 1000 <= item < 1000 + N_ITEMS]
    if not known:
        all_scores = gru.support / gru.support.sum()
    else:
        all_scores = scores_of(gru, known)
    choices = np.arange(N_ITEMS) if among is None else np.unique(among) - 1000
    if seen and known:
        choices = np.setdiff1d(choices, np.array(known) - 1000)
    order = choices[np.argsort(-all_scores[choices], kind="stable")][:k]
    n = len(order)
    np.testing.assert_allclose(scores[:n].astype(float), all_scores[order], rtol=1e-4, atol=1e-5)
    assert (scores[n:] == -np.inf).all() and all(item is None for item in found[n:])
    positions = found[:n].astype(int) - 1000
    assert len({*positions}) == n and {*positions} <= {*choices}
    # the items' own scores: those of nearly equal ones may be the other way round
    np.testing.assert_allclose(all_scores[positions], all_scores[order], rtol=1e-4, atol=1e-5)
    # equal rows in the order of the items, with equal scores
    rows = np.column_stack([gru.Wy.get_value(), gru.By.get_value()])
    for a, b, x, y in zip(positions, positions[1:], scores, scores[1:]):
        assert x >= y
        if PRODUCTS_ARE_EXACT and known and (rows[a] == rows[b]).all():
            assert x == y and a < b


events_of_sessions = st.lists(
    st.lists(st.integers(995, 1000 + N_ITEMS), max_size=12), min_size=1, max_size=20
)


@settings(max_examples=12, deadline=None)
@given(
    sessions=events_of_sessions,
    k=st.sampled_from([1, 5, 20, 280, 1000]),
    seen=st.booleans(),
    among=st.one_of(st.none(), st.lists(st.integers(1000, 999 + N_ITEMS), min_size=1, max_size=40)),
)
def test_brute_force(gru, sessions, k, seen, among):
    found = gru.recommend(sessions, k, exclude_seen=seen, items=among)
    n_choices = N_ITEMS if among is None else len({*among})
    assert found.items.shape == found.scores.shape == (len(sessions), min(k, n_choices))
    for events, items, scores in zip(sessions, *found):
        check_list(gru, events, items, scores, min(k, n_choices), seen, among)


@settings(max_examples=10, deadline=None)
@given(sessions=events_of_sessions, k=st.sampled_from([1, 20, 280]), seen=st.booleans())
def test_one_by_one_as_in_a_batch(gru, sessions, k, seen):
    """To the bit, where the products promise it: not those of BLAS."""
    together = gru.recommend(sessions, k, exclude_seen=seen)
    for events, items, scores in zip(sessions, *together):
        alone = gru.recommend([events], k, exclude_seen=seen)
        running = gru.session()
        for item in events:
            assert running.click(item) == (1000 <= item < 1000 + N_ITEMS)
        for other_items, other_scores in ((alone.items[0], alone.scores[0]), running.top(k, seen)):
            np.testing.assert_allclose(
                other_scores.astype(float), scores.astype(float), rtol=1e-4, atol=1e-5
            )
            if PRODUCTS_ARE_EXACT:
                assert (other_items == items).all() and (other_scores == scores).all()


def products_are_exact() -> bool:
    from gru4rec_toolkit.ops import library

    return library.usable() and bool(library.load().gk_has_tiles())


PRODUCTS_ARE_EXACT = products_are_exact()


def test_items_of_equal_scores_come_in_the_order_of_the_items():
    """Of one score, all of them, in every block and on every thread."""
    gru = GRU4Rec(layers=[4], final_act="linear")
    n_items = 20_000
    arrays = weights.initial(gru.settings, n_items)
    arrays["Wy"][:] = 0
    gru.take(Network(gru.settings, arrays), np.arange(n_items))
    found = gru.recommend([[5], [7, 8]], k=9000, exclude_seen=True)
    assert found.items[0].tolist() == [i for i in range(9001) if i != 5]
    assert found.items[1].tolist() == [i for i in range(9002) if i not in (7, 8)]


# ---------------------------------------------------------------------------- sessions


def test_a_frame_of_events(one, caplog):
    """In any order of the rows; the result is in the order of the sessions' ids."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"SessionId": rng.integers(50, 70, 200), "Time": np.arange(200)})
    data["ItemId"] = rng.integers(990, 1000 + N_ITEMS, 200)
    lists = [group.ItemId.tolist() for _, group in data.groupby("SessionId")]
    with caplog.at_level(logging.INFO, "gru4rec"):
        found = one.recommend(data.sample(frac=1, random_state=1), k=4)
    expected = one.recommend(lists, k=4)
    assert (found.items == expected.items).all() and (found.scores == expected.scores).all()
    unknown = int((data.ItemId < 1000).sum())
    said = f"{unknown} of 200 events are on items that the model does not know; they are skipped"
    assert said in caplog.text


def test_many_sessions_of_all_lengths(one, monkeypatch):
    """In parts, of which each has several batches."""
    monkeypatch.setattr(batch, "AT_ONCE", 7)
    monkeypatch.setattr(batch, "CHUNK", 20)
    rng = np.random.default_rng(4)
    lists = [rng.integers(1000, 1000 + N_ITEMS, rng.integers(0, 30)).tolist() for _ in range(95)]
    found = one.recommend(lists, k=3)
    for events, items, scores in zip(lists, *found):
        check_list(one, events, items, scores, 3, False, None)


def test_ties_of_many_sessions(one):
    """More than fit into one product that keeps the ties of equal rows."""
    rng = np.random.default_rng(5)
    lists = rng.integers(1000, 1000 + N_ITEMS, (300, 2)).tolist()
    found = one.recommend(lists, k=N_ITEMS)
    for events, items, scores in zip(lists, *found):
        check_list(one, events, items, scores, N_ITEMS, False, None)


def test_no_session_at_all(one):
    found = one.recommend([], k=3)
    assert found.items.shape == found.scores.shape == (0, 3)


def test_ids_are_compared_by_value():
    gru = random_model("shared", np.array([f"{i:04d}" for i in range(N_ITEMS)], dtype=object))
    found = gru.recommend([["0012", "0299"], ["12"], [12]], k=2)
    assert all(type(item) is str for item in found.items.ravel())
    assert (found.items[1] == found.items[2]).all()
    numbers = random_model("shared")
    running = numbers.session()
    assert [running.click(x) for x in (1000, "1000", 1000.0, np.int32(1001))] == [True] * 4
    assert [running.click(x) for x in ("01000", "x", 999, 1000.5, True, None)] == [False] * 6
    assert running.n_unknown == 6


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (([1000, 1001],), r"sessions: .*one list of item ids for each.* got 1000 in place 0"),
        (("1000",), "sessions: expected a DataFrame"),
        ((7,), "sessions: expected a DataFrame"),
        ((["ab"],), "got 'ab' in place 0"),
        (([[1000]], 0), "k: expected an integer of 1 or more, got 0"),
        (([[1000]], 2, "perhaps"), "exclude_seen: expected"),
        (([[1000]], 2, False, [5]), "items: item 5 does not occur in the training data"),
        (([[1000]], 2, False, []), "items: it is empty"),
        ((pd.DataFrame({"a": [1]}),), 'column "SessionId"'),
    ],
)
def test_what_cannot_be_used(one, arguments, what):
    with pytest.raises(InputError, match=what):
        one.recommend(*arguments)


def test_an_empty_session_of_a_model_without_support(one):
    gru = GRU4Rec(**MODELS["shared"], layers=[8])
    gru.take(one.network, one.item_ids)
    assert gru.recommend([[1000]]).items.shape == (1, 20)
    with pytest.raises(InputError, match="does not tell how often items occurred"):
        gru.recommend([[1000], []])


def test_an_untrained_model_and_a_variant():
    with pytest.raises(InputError, match="not trained"):
        GRU4Rec().recommend([[1]])

    class Variant(GRU4Rec):
        def predict_next_batch(self, *arguments):
            raise AssertionError

    gru = Variant(layers=[8], constrained_embedding=True, **XE)
    gru.take(random_model("shared").network, np.arange(N_ITEMS))
    with pytest.raises(InputError, match="recommend: Variant predicts in a way of its own"):
        gru.recommend([[1]])


def test_weights_that_are_set_count(one):
    gru = random_model("shared")
    before = gru.recommend([[1000]], k=1)
    gru.By.set_value(
        np.where(np.arange(N_ITEMS) == 17, 99, 0)[:, None].astype(theano.config.floatX)
    )
    after = gru.recommend([[1000]], k=1)
    assert after.items.tolist() == [[1017]] != before.items.tolist()


# ---------------------------------------------------------------------------- states


def test_a_state_that_is_stored(gru):
    """It goes on as the session would have, in another object of the same model."""
    running = gru.session()
    for item in (1001, 1250, 1003):
        running.click(item)
    state = running.state
    assert isinstance(state, bytes) and len(state) < 400
    again = gru.session(state)
    for each in (running, again):
        each.click(1100)
    assert all((a == b).all() for a, b in zip(running.top(9, True), again.top(9, True)))
    assert again.state == running.state != state


@pytest.mark.parametrize("change", ["cut", "longer", "byte", "magic", "version", "empty", "type"])
def test_a_damaged_state(one, change):
    running = one.session()
    running.click(1000)
    state = running.state
    damaged = {
        "cut": state[:-1],
        "longer": state + b"x",
        "byte": state[:-3] + bytes([state[-3] ^ 1]) + state[-2:],
        "magic": b"x" + state[1:],
        "version": state[:8] + b"\x09" + state[9:],
        "empty": b"",
        "type": "text",
    }[change]
    with pytest.raises(InputError, match="^state: "):
        one.session(damaged)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10_000), byte=st.integers(1, 255))
def test_every_changed_byte_of_a_state_is_noticed(one, position, byte):
    running = one.session()
    running.click(1000)
    state = bytearray(running.state)
    state[position % len(state)] ^= byte
    with pytest.raises(InputError, match="^state: "):
        one.session(bytes(state))


@pytest.mark.parametrize("change", ["position", "negative", "NaN", "size"])
def test_a_state_that_somebody_made(one, change):
    """Its checksum is right, and nothing in it may be used without a look."""
    running = one.session()
    running.click(1000)
    header, body = session._HEADER, bytearray(running.state[session._HEADER.size :])
    magic, version, size, fingerprint, _, n_seen = header.unpack_from(running.state)
    if change == "NaN":
        body[4 : 4 + size] = np.array([np.nan], f"<f{size}").tobytes()
    elif change == "size":
        size, body = 3, body[: 4 + 3 * 8]
    else:
        position = N_ITEMS if change == "position" else -1
        body[:4] = np.array([position], "<i4").tobytes()
    state = header.pack(magic, version, size, fingerprint, zlib.crc32(body), n_seen) + body
    with pytest.raises(InputError, match="damaged"):
        one.session(bytes(state))


def test_weights_of_which_one_is_no_number(one):
    gru = random_model("shared")
    gru.By.set_value(np.full((N_ITEMS, 1), np.nan, dtype=theano.config.floatX))
    for use in (lambda: gru.recommend([[1000]]), gru.session):
        with pytest.raises(InputError, match="weights By hold NaN or infinity"):
            use()


def test_a_state_of_other_weights(one):
    other = random_model("shared")
    other.By.set_value(other.By.get_value() + 1)
    running = other.session()
    running.click(1000)
    with pytest.raises(InputError, match="belongs to another model, or to other weights"):
        one.session(running.state)


def test_sessions_of_several_threads(one):
    """Each has its own clicks; Theano runs one function at a time."""
    lists = np.random.default_rng(5).integers(1000, 1000 + N_ITEMS, (8, 12)).tolist()
    expected, found = one.recommend(lists, k=5), [None] * len(lists)

    def run(number: int) -> None:
        running = one.session()
        for item in lists[number]:
            running.click(item)
            running.top(3)
        found[number] = running.top(5)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(lists))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, (items, scores) in enumerate(found):
        np.testing.assert_allclose(scores, expected.scores[i], rtol=1e-4, atol=1e-5)
        assert not PRODUCTS_ARE_EXACT or (items == expected.items[i]).all()


# ---------------------------------------------------------------------------- elsewhere


def test_the_kernel_ranks_where_it_runs(one):
    ranker = topk.Ranker(one.network, "linear", False)
    assert (ranker.ranked is not None) == usable()


@pytest.mark.parametrize("flags", ["floatX=float64", "blas.ldflags="])
def test_elsewhere_on_the_cpu(flags):
    chosen = "shared or separate or relu or order_of_the_items or state"
    runs(__file__, f"device=cpu,{flags}", f"({chosen}) and not elsewhere and not byte")


def test_elsewhere_on_a_gpu(gpu):
    gpu.runs(__file__, "(shared or tanh or order_of_the_items) and not elsewhere")
