"""Top-N lists against sorting by scores, ties included."""

from __future__ import annotations

import numpy as np
import pytest

from gru4rec import GRU4Rec, Network
from gru4rec_toolkit.data import schedule, sessions
from gru4rec_toolkit.model import toplists, weights


@pytest.fixture(params=[None, 1, 7, 60, 100], ids=lambda n: f"blocks of {n}" if n else "kernel")
def ranked(request, monkeypatch):
    """The kernel where one runs, and the symbolic scores in blocks of items of any size."""
    if request.param is not None:
        monkeypatch.setattr(toplists, "best_items", lambda *arguments: None)
        monkeypatch.setattr(toplists, "ITEM_BLOCK", request.param)


@pytest.mark.parametrize("candidates", [None, np.arange(3, 50, 4)], ids=["all", "given"])
def test_lists_are_sorted_scores(model, test_data, ranked, candidates):
    """Step by step what the model predicts for the sessions."""
    log = sessions.index_sessions(test_data, item_ids=model.item_ids)
    order = schedule.training_order(log, time_sort=False)
    positions = schedule.target_positions(log, order, 13)
    lists = np.concatenate([*toplists.top_lists(model.network, log, candidates, 13, 10)])
    assert lists.shape == (len(positions), 10)
    starts = log.offsets[np.searchsorted(log.offsets, positions, side="right") - 1]
    for target, start, listed in list(zip(positions, starts, lists))[::41]:
        for item in log.items[start:target]:
            scores = model.predict_next_batch([start], model.item_ids[[item]], batch=1)[0]
        scores = scores.to_numpy()
        asked = np.arange(60) if candidates is None else candidates
        expected = asked[np.argsort(-scores[asked], kind="stable")[:10]]
        # equal but for the order of scores that differ in their last bits
        np.testing.assert_allclose(scores[listed], scores[expected], rtol=1e-4)
        assert len({*listed.tolist()}) == 10 and {*listed.tolist()} <= {*asked.tolist()}


@pytest.mark.parametrize("final_act", ["linear", "relu", "softmax"])
def test_equal_scores_are_listed_by_index(final_act, test_data, ranked):
    """A relu makes equal scores of all negative ones; a softmax must not make any."""
    loss = "cross-entropy" if final_act == "softmax" else "bpr-max"
    gru = GRU4Rec(loss=loss, final_act=final_act, layers=[4])
    item_ids = test_data.ItemId.unique().astype(object)
    arrays = weights.initial(gru.settings, len(item_ids))
    arrays["Wy"][:] = 0
    arrays["By"][:, 0] = np.random.default_rng(0).integers(-150, 3, len(item_ids)) // 2
    gru.take(Network(gru.settings, arrays), item_ids)
    log = sessions.index_sessions(test_data, item_ids=gru.item_ids)
    scores = arrays["By"][:, 0]
    scores = np.maximum(scores, 0) if final_act == "relu" else scores
    expected = np.argsort(-scores, kind="stable")[:25].tolist()
    for lists in toplists.top_lists(gru.network, log, None, 20, 25):
        assert lists.tolist() == [expected] * len(lists)
