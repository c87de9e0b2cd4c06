"""Validation while a model is trained: the metrics, the best epoch, the early stop, callbacks."""

from __future__ import annotations

import json
import threading

import numpy as np
import pandas as pd
import pytest
from helpers.cli import TEST, TRAIN

import evaluation
from gru4rec import GRU4Rec, Network, TrainingDiverged, Validation
from gru4rec_toolkit import container, parameters
from gru4rec_toolkit.data import sessions
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model import checkpoint, ranking, training
from gru4rec_toolkit.tracking.epochs import Epoch

# its best epoch is neither the first nor the last, as a test below makes sure
BASE = {"layers": [8], "batch_size": 8, "n_sample": 16, "n_epochs": 6, "learning_rate": 0.8}


class Stop(Exception):
    """What a test ends a training with."""


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return pd.read_csv(TRAIN, sep="\t")


@pytest.fixture(scope="module")
def held_out() -> pd.DataFrame:
    return pd.read_csv(TEST, sep="\t")


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    monkeypatch.setattr(training, "BLOCK_STEPS", 16)


def fitted(data, values=None, **options) -> tuple[GRU4Rec, list[Epoch], list[dict]]:
    """Return a model, the records of its epochs, and its weights after each of them."""
    gru, records, weights = GRU4Rec(**{**BASE, **(values or {})}), [], []

    def keep(epoch: Epoch) -> None:
        records.append(epoch)
        weights.append(gru.weights())

    gru.fit(data, **{"sample_store": 500, "callbacks": [keep], **options})
    return gru, records, weights


def same(left: dict, right: dict) -> bool:
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


def timeless(records: list[Epoch]) -> list[Epoch]:
    return [record._replace(seconds=0.0, is_replay=False) for record in records]


@pytest.fixture(scope="module")
def usual(data, held_out):
    return fitted(data, validation=held_out)


def best_number(records: list[Epoch], name: str = "Recall@20") -> int:
    return 1 + int(np.argmax([record.metrics[name] for record in records]))


# ---------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("mode", parameters.TIE_MODES)
@pytest.mark.parametrize("final_act", ["linear", "relu"])
def test_metrics_are_those_of_the_evaluation(data, held_out, mode, final_act):
    gru, found, expected = GRU4Rec(**BASE, final_act=final_act), [], []

    def evaluate(number: int) -> None:
        recall, mrr = evaluation.evaluate_gpu(gru, held_out, cut_off=[3, 20, 1], mode=mode)
        expected.append([*zip(recall, mrr)])

    validation = Validation(held_out, cut_off=[3, 20, 1], mode=mode, batch_size=7)
    gru.fit(data, validation=validation, after_epoch=evaluate, callbacks=[found.append])
    names = [*found[0].metrics]
    assert names == ["Recall@3", "MRR@3", "Recall@20", "MRR@20", "Recall@1", "MRR@1"]
    for record, values in zip(found, expected):
        assert [*record.metrics.values()] == [x for pair in values for x in pair]


def test_it_is_compiled_once(data, held_out, monkeypatch):
    made = []
    make = ranking.RankCounter.__init__
    monkeypatch.setattr(
        ranking.RankCounter, "__init__", lambda *args: (made.append(1), make(*args))[1]
    )
    fitted(data, validation=held_out)
    assert len(made) == 1


def test_the_training_is_left_alone(data, usual):
    _, records, weights = usual
    _, others, without = fitted(data)
    assert all(map(same, weights, without)) and len(weights) == len(without) == 6
    assert [r.loss for r in records] == [r.loss for r in others]
    assert all(not r.metrics and not r.is_best for r in others)


def test_records(data, usual, capsys):
    _, records, _ = usual
    assert [r.number for r in records] == [1, 2, 3, 4, 5, 6]
    assert {(r.n_epochs, r.seed, r.is_replay) for r in records} == {(6, 42, False)}
    log = sessions.index_sessions(data)
    assert {r.n_events for r in records} == {log.n_events - log.n_sessions}
    fitted(data, {"n_epochs": 2})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch")]
    for line, record in zip(lines, records):
        assert line.startswith(f"Epoch{record.number} --> loss: {record.loss:.6f} ")


# ---------------------------------------------------------------------------- the best epoch


def test_the_best_epoch_is_kept(usual, held_out):
    gru, records, weights = usual
    best = best_number(records)
    assert 1 < best < 6
    assert same(gru.weights(), weights[best - 1]) and not same(gru.weights(), weights[-1])
    assert evaluation.evaluate_gpu(gru, held_out)[0][0] == records[best - 1].metrics["Recall@20"]
    so_far = np.maximum.accumulate([r.metrics["Recall@20"] for r in records])
    assert [r.is_best for r in records] == [True, *(np.diff(so_far) > 0)]


@pytest.mark.parametrize(("metric", "name"), [("recall", "Recall@5"), ("mrr", "MRR@5")])
def test_the_metric_that_decides(data, held_out, metric, name, capsys):
    validation = Validation(held_out, cut_off=[5, 20], metric=metric)
    gru, records, weights = fitted(data, validation=validation)
    best = best_number(records, name)
    assert same(gru.weights(), weights[best - 1])
    assert f"Best epoch: {best} of 6 ({name}: " in capsys.readouterr().out


def test_patience(data, held_out, usual, capsys):
    _, records, weights = usual
    best = best_number(records)
    gaps = np.diff([r.number for r in records if r.is_best])
    patience = int(max(gaps, default=1))
    assert best + patience < 6, "the early stop cannot be seen"
    gru, found, _ = fitted(data, validation=held_out, patience=patience)
    assert timeless(found) == timeless(records[: best + patience])
    assert same(gru.weights(), weights[best - 1])
    out = capsys.readouterr().out
    epochs = "1 epoch" if patience == 1 else f"{patience} epochs"
    assert f"No better Recall@20 in {epochs}: the training ends early\n" in out
    # enough of it changes nothing, and nothing is said
    assert timeless(fitted(data, validation=held_out, patience=6)[1]) == timeless(records)
    assert "ends early" not in capsys.readouterr().out


def test_equal_metrics_are_no_better(data, held_out):
    """A model that learns nothing is as good after each epoch."""
    _, records, _ = fitted(data, {"learning_rate": 1e-30}, validation=held_out, patience=3)
    assert [r.is_best for r in records] == [True, False, False, False]


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_a_training_that_ends_early_keeps_the_best(data, held_out, usual, error):
    _, records, weights = usual
    best, gru, ends = best_number(records), GRU4Rec(**BASE), []

    class Callback:
        def __call__(self, epoch: Epoch) -> None:
            if epoch.number == best + 1:
                raise error

        def close(self, error: BaseException | None) -> None:
            ends.append(type(error))

    with pytest.raises(error):
        gru.fit(data, sample_store=500, validation=held_out, callbacks=Callback())
    assert same(gru.weights(), weights[best - 1]) and ends == [error]


def test_a_training_that_diverges_keeps_the_best(data, held_out):
    gru = GRU4Rec(**BASE)

    def spoil(number: int) -> None:
        gru.Wy.set_value(gru.Wy.get_value() * np.nan)

    with pytest.raises(TrainingDiverged, match="epoch 2"):
        gru.fit(data, validation=held_out, after_epoch=spoil)
    evaluation.evaluate_gpu(gru, held_out)  # it raises an InputError at NaN


def test_callbacks_are_closed_after_a_good_end(data):
    ends = []

    class Callback:
        def __call__(self, epoch: Epoch) -> None: ...

        def close(self, error: BaseException | None) -> None:
            ends.append(error)

    fitted(data, {"n_epochs": 1}, callbacks=[Callback(), Callback()])
    assert ends == [None, None]


# ---------------------------------------------------------------------------- checkpoints


def interrupted(data, n_blocks: int, **options) -> None:
    """Begin a training that ends after so many blocks, or after its end."""
    run_block, n_run = training.Training.run_block, [0]

    def counting(self, *args):
        if n_run[0] == n_blocks:
            raise Stop
        n_run[0] += 1
        return run_block(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "run_block", counting)
        with pytest.raises(Stop):
            fitted(data, **options)


@pytest.mark.parametrize("n_blocks", [3, 10, 29, 41, 57])
@pytest.mark.parametrize("minutes", [0, None])
def test_going_on(data, held_out, usual, tmp_path, n_blocks, minutes):
    whole, records, _ = usual
    options = {"validation": held_out, "checkpoint": str(tmp_path), "checkpoint_minutes": minutes}
    interrupted(data, n_blocks, **options)
    gru, found, _ = fitted(data, **options, resume=True)
    assert timeless(found) == timeless(records)
    assert same(gru.weights(), whole.weights())
    # a finished training is told of once more, and ends with the same weights
    again, found, _ = fitted(data, **options, resume=True)
    assert all(r.is_replay for r in found) and timeless(found) == timeless(records)
    assert same(again.weights(), whole.weights())


def test_what_was_done_before_is_replayed(data, held_out, tmp_path, usual):
    options = {"validation": held_out, "checkpoint": str(tmp_path)}

    def interrupt(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise Stop

    with pytest.raises(Stop):
        fitted(data, **options, callbacks=[interrupt])
    _, found, _ = fitted(data, **options, resume=True)
    assert [r.is_replay for r in found] == [True, True, False, False, False, False]
    assert all(r.seconds > 0 for r in found) and timeless(found) == timeless(usual[1])


def test_what_callbacks_fail_at_is_in_the_checkpoint(data, held_out, tmp_path):
    """The epoch is not trained again."""

    def fail(epoch: Epoch) -> None:
        raise Stop

    for options in ({"callbacks": [fail]}, {"validation": held_out, "callbacks": [fail]}):
        with pytest.raises(Stop):
            fitted(data, **options, checkpoint=str(tmp_path), resume=True)
        path = tmp_path / checkpoint.FILE_NAME
        with np.load(path, allow_pickle=False) as file:
            state = json.loads(file["header"].tobytes())["training"]
        assert state["epoch"] == 0 and state["block"] > 1
        path.unlink()


def test_weights_of_a_best_epoch_that_somebody_made(data, held_out, tmp_path):
    options = {"validation": held_out, "checkpoint": str(tmp_path)}
    fitted(data, values={"n_epochs": 1}, **options)
    path = str(tmp_path / checkpoint.FILE_NAME)
    state, arrays = container.read(checkpoint._KIND, path, "training")
    arrays["best.Wy"] = arrays["best.Wy"][1:]
    with open(path, "wb") as file:
        container.write(checkpoint._KIND, file, {"training": state}, arrays)
    with pytest.raises(InputError, match=r"this training \(Wy has the shape \(59, 8\)"):
        fitted(data, values={"n_epochs": 1}, **options, resume=True)


def test_an_early_stop_is_remembered(data, held_out, tmp_path, usual):
    options = {"validation": held_out, "checkpoint": str(tmp_path)}
    _, first, _ = fitted(data, **options, patience=1)
    assert len(first) < 6
    gru, found, _ = fitted(data, **options, patience=1, resume=True)
    assert timeless(found) == timeless(first)
    # more patience lets it go on
    gru, found, _ = fitted(data, **options, resume=True)
    assert timeless(found) == timeless(usual[1]) and same(gru.weights(), usual[0].weights())


@pytest.mark.parametrize(
    "other",
    [
        "none",
        {"cut_off": [10]},
        {"metric": "mrr"},
        {"mode": "conservative"},
        {"n_rows": 100},
    ],
    ids=str,
)
def test_another_validation_is_refused(data, held_out, tmp_path, other):
    fitted(data, validation=held_out, checkpoint=str(tmp_path), values={"n_epochs": 1})
    validation = None
    if other != "none":
        arguments = dict(other)
        validation = Validation(held_out[: arguments.pop("n_rows", None)], **arguments)
    options = {"checkpoint": str(tmp_path), "resume": True, "values": {"n_epochs": 1}}
    with pytest.raises(InputError, match="another validation"):
        fitted(data, validation=validation, **options)


# ---------------------------------------------------------------------------- retraining


@pytest.mark.parametrize(("first", "rate"), [(0.1, 2.0), (2.0, 0.1)])
@pytest.mark.parametrize("n_blocks", [None, 5, 29])
def test_the_model_before_counts(data, held_out, tmp_path, first, rate, n_blocks):
    """A training that goes on may make it worse; then nothing is changed."""
    gru, found = GRU4Rec(**{**BASE, "learning_rate": first}), []
    gru.fit(data, sample_store=500)
    before, metric = gru.weights(), evaluation.evaluate_gpu(gru, held_out)[0][0]
    gru.savemodel(tmp_path / "m")
    gru.set_params(learning_rate=rate, n_epochs=4)
    gru.fit(data, retrain=True, sample_store=500, validation=held_out, callbacks=[found.append])
    best = [r.metrics["Recall@20"] for r in found if r.is_best]
    assert all(value > metric for value in best) and (len(best) == 0) == (rate == 2.0)
    assert same(gru.weights(), before) == (rate == 2.0)
    assert evaluation.evaluate_gpu(gru, held_out)[0][0] == max([metric, *best])
    if n_blocks is None:
        return
    run_block, n_run = training.Training.run_block, [0]

    def counting(self, *args):
        if n_run[0] == n_blocks:
            raise Stop
        n_run[0] += 1
        return run_block(self, *args)

    options = {"retrain": True, "sample_store": 500, "validation": held_out}
    options.update(checkpoint=str(tmp_path / "c"), checkpoint_minutes=0, resume=True)
    for patched in (True, False):
        again, records = GRU4Rec.loadmodel(tmp_path / "m"), []
        again.set_params(learning_rate=rate, n_epochs=4)
        with pytest.MonkeyPatch.context() as patch:
            if patched:
                patch.setattr(training.Training, "run_block", counting)
                with pytest.raises(Stop):
                    again.fit(data, **options)
            else:
                again.fit(data, **options, callbacks=[records.append])
    assert same(again.weights(), gru.weights()) and timeless(records) == timeless(found)


# ---------------------------------------------------------------------------- refusals


def test_two_trainings_of_one_model(data):
    gru, refused = GRU4Rec(**BASE), []

    def again(epoch: Epoch) -> None:
        other = threading.Thread(target=lambda: refused.append(refusal()))
        for _ in range(2):
            refused.append(refusal())
        other.start()
        other.join()

    def refusal() -> str:
        with pytest.raises(InputError) as found:
            gru.fit(data)
        return str(found.value)

    gru.fit(data, callbacks=[again])
    assert len(refused) == 18 and {text[:30] for text in refused} == {
        "fit: the model is being traine"
    }
    gru.n_epochs = 1
    gru.fit(data)  # and afterwards it can be


class OfItsOwn(GRU4Rec):
    def predict_next_batch(self, *args, **options):
        return None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 2}, "patience counts epochs without a better validation; give validation"),
        ({"validation": "test.tsv"}, "validation: expected a DataFrame or a Validation, got 'test"),
        ({"validation": True, "patience": 0}, "patience: expected a number of epochs, 1 or more"),
        ({"callbacks": [3]}, "callbacks: expected a list of functions of an Epoch, got"),
    ],
)
def test_wrong_arguments(data, held_out, options, message):
    options = {name: held_out if value is True else value for name, value in options.items()}
    gru = GRU4Rec(**BASE)
    with pytest.raises(InputError, match=message):
        gru.fit(data, **options)
    assert gru.network is None


def test_sessions_that_cannot_be_used(data, held_out):
    gru = GRU4Rec(**BASE)
    with pytest.raises(
        InputError, match="valid.tsv: none of the model's 60 items occurs in column"
    ):
        strangers = held_out.assign(ItemId=held_out.ItemId + 10**9)
        gru.fit(data, validation=Validation(strangers, source="valid.tsv"))
    with pytest.raises(InputError, match="validation data: .*Time"):
        gru.fit(data, validation=held_out.drop(columns="Time"))
    assert gru.network is None


class Flat(Network):
    """A network with scores of its own, by which the kernels do not rank."""

    @staticmethod
    def scores(h, rows, biases):
        return -Network.scores(h, rows, biases)


class WithFlat(GRU4Rec):
    network_class = Flat


@pytest.mark.parametrize("variant", [OfItsOwn, WithFlat])
def test_a_prediction_of_its_own(data, held_out, variant):
    message = f"validation: {variant.__name__} predicts in a way of its own; evaluate it in after"
    with pytest.raises(InputError, match=message):
        variant(**BASE).fit(data, validation=held_out)


@pytest.mark.parametrize("argument", [{"metric": "ndcg"}, {"mode": "x"}, {"cut_off": []}], ids=str)
def test_validation_checks_its_arguments(held_out, argument):
    (name,) = argument
    with pytest.raises(InputError, match=f"^{name}: expected"):
        Validation(held_out, **argument)


def test_on_a_gpu(gpu):
    gpu.runs(__file__, "test_going_on and (0-29 or 0-57) or best_epoch_is_kept")
