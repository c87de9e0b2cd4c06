"""Exported models: ONNX graphs that onnxruntime runs, and weights by name."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from helpers.cli import TEST, TRAIN, complaint, files_in, run_py, succeeds
from helpers.on_gpu import runs
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.test_recommend import MODELS, N_ITEMS, random_model

from gru4rec import GRU4Rec, Network
from gru4rec_toolkit import parameters
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.model import weights
from gru4rec_toolkit.serving import exports
from gru4rec_toolkit.serving import onnx as onnx_export

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
safetensors = pytest.importorskip("safetensors.numpy")

LOSSES = {
    name: loss.softmax or ("elu-0.5" if name == "bpr-max" else "linear")
    for name, loss in parameters.LOSSES.items()
}
ACTIVATIONS = ["linear", "relu", "tanh", "leaky-0.2", "elu-0.7", "selu-1.05-1.67"]
EMBEDDINGS = {
    "one-hot": {},
    "shared": {"constrained_embedding": True},
    "separate": {"embedding": 6},
    "separate, of the layer's size": {"embedding": "layersize"},
}


class Exported:
    """An exported model as a program without Theano uses it."""

    def __init__(self, path) -> None:
        onnx.checker.check_model(str(path), full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.step = onnxruntime.InferenceSession(str(path), options)
        self.metadata = self.step.get_modelmeta().custom_metadata_map
        self.ids = json.loads(self.metadata["item_ids"])
        self.states = [i for i in self.step.get_inputs() if i.name.startswith("state_")]

    def zeros(self, n: int) -> dict[str, np.ndarray]:
        kind = {"tensor(float)": np.float32, "tensor(double)": np.float64}
        return {h.name: np.zeros((n, h.shape[1]), kind[h.type]) for h in self.states}

    def __call__(self, items, states, k: int) -> dict[str, np.ndarray]:
        names = [output.name for output in self.step.get_outputs()]
        inputs = {"items": np.array(items, np.int64), "k": np.array([k]), **states}
        return dict(zip(names, self.step.run(names, inputs)))

    def after(self, sessions: list, k: int) -> dict[str, np.ndarray]:
        """Return the outputs after the last of some sessions' items, of lengths that differ."""
        states = self.zeros(len(sessions))
        for step in range(max(map(len, sessions))):
            items = [s[step] if step < len(s) else -1 for s in sessions]
            found = self(items, states, k)
            states = {name: found[f"new_{name}"] for name in states}
        return found


def model_of(item_ids=None, n_items: int = 60, **values) -> GRU4Rec:
    rng = np.random.default_rng(1)
    gru = GRU4Rec(layers=[9], **{k: v for k, v in values.items() if k != "layers"})
    gru.set_params(**{"layers": values.get("layers", [9])})
    arrays = weights.initial(gru.settings, n_items)
    for array in arrays.values():
        array[:] = rng.normal(0, 0.6, array.shape)
    ids = np.arange(n_items) + 500 if item_ids is None else item_ids
    gru.take(Network(gru.settings, arrays), ids, rng.integers(1, 9, n_items))
    return gru


def check_agreement(gru: GRU4Rec, path, sessions: list, k: int = 20) -> None:
    """Compare the exported graph with what the model recommends, ids, ties and scores."""
    gru.export_onnx(str(path), force=True)
    exported = Exported(path)
    found = exported.after(sessions, k)
    items, scores = gru.recommend([gru.item_ids[s] for s in sessions], k)
    assert gru.item_ids[found["top_items"]].tolist() == items.tolist()
    np.testing.assert_allclose(found["top_scores"], scores, rtol=1e-5, atol=1e-5)
    # all scores, and not the best ones only
    everything = gru.recommend([gru.item_ids[s] for s in sessions], len(gru.item_ids))
    order = np.argsort(-found["scores"], axis=1, kind="stable")
    np.testing.assert_allclose(
        np.take_along_axis(found["scores"], order, axis=1), everything.scores, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_embeddings(tmp_path, loss, embedding):
    gru = model_of(loss=loss, final_act=LOSSES[loss], **EMBEDDINGS[embedding])
    check_agreement(gru, tmp_path / "m.onnx", [[3, 7, 7], [1], [59, 0]])


@pytest.mark.parametrize("layers", [[9], [7, 5], [4, 6, 5]])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations_and_layers(tmp_path, act, layers):
    gru = model_of(loss="bpr-max", final_act=act, hidden_act=act, layers=layers)
    check_agreement(gru, tmp_path / "m.onnx", [[3, 7, 7, 2], [1, 4], [59]])
    shared = model_of(
        loss="bpr-max", final_act=act, hidden_act=act, layers=layers, constrained_embedding=True
    )
    check_agreement(shared, tmp_path / "m.onnx", [[3, 7, 7, 2], [1, 4], [59]])


def test_every_activation_has_a_form_in_onnx():
    assert set(onnx_export._ACTIVATIONS) == set(parameters.ACTIVATIONS)
    assert {name.split("-")[0] for name in ACTIVATIONS} == set(parameters.ACTIVATIONS)


@pytest.mark.parametrize("name", MODELS)
def test_ties(tmp_path, name):
    """Half of the items of these models have the row of another one."""
    check_agreement(random_model(name), tmp_path / "m.onnx", [[5], [17, 3], [299, 0, 1]], k=150)


@settings(max_examples=25, deadline=None)
@given(
    sessions=st.lists(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=6), min_size=1),
    k=st.integers(1, N_ITEMS + 5),
)
def test_any_sessions(tmp_path_factory, sessions, k):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    gru = random_model("separate, two layers")
    if not path.exists():
        gru.export_onnx(str(path))
    found = Exported(path).after(sessions, k)
    items, scores = gru.recommend([gru.item_ids[s] for s in sessions], k)
    assert gru.item_ids[found["top_items"]].tolist() == items.tolist()
    np.testing.assert_allclose(found["top_scores"], scores, rtol=1e-5, atol=1e-5)


def test_sessions_without_an_event_keep_their_states(tmp_path):
    gru = model_of(layers=[7, 5])
    gru.export_onnx(str(tmp_path / "m.onnx"))
    exported = Exported(tmp_path / "m.onnx")
    before = exported([4, 9], exported.zeros(2), 5)
    states = {h.name: before[f"new_{h.name}"] for h in exported.states}
    after = exported([-1, 3], states, 5)
    for name, value in states.items():
        assert (after[f"new_{name}"][0] == value[0]).all()
        assert (after[f"new_{name}"][1] != value[1]).any()
    assert (after["top_items"][0] == before["top_items"][0]).all()


@pytest.mark.parametrize("kind", ["integers", "text"])
def test_metadata(tmp_path, kind):
    ids = np.arange(60) * 2**56 - 2**61
    if kind == "text":
        ids = np.array([f"0{i} \ud800é" for i in range(60)], dtype=object)
    gru = model_of(item_ids=ids)
    gru.export_onnx(str(tmp_path / "m.onnx"))
    metadata = Exported(tmp_path / "m.onnx").metadata
    assert json.loads(metadata["item_ids"]) == ids.tolist()
    assert json.loads(metadata["support"]) == gru.support.tolist()
    assert json.loads(metadata["parameters"]) == gru.settings.as_dict()
    assert (metadata["format"], metadata["version"]) == ("gru4rec-onnx", "1")


def test_models_that_do_not_know_their_support(tmp_path):
    gru = model_of()
    gru.take(gru.network, gru.item_ids)
    gru.export_onnx(str(tmp_path / "m.onnx"))
    gru.export_safetensors(str(tmp_path / "m.safetensors"))
    assert Exported(tmp_path / "m.onnx").metadata["support"] == "null"
    assert "support" not in safetensors.load_file(tmp_path / "m.safetensors")


@pytest.mark.parametrize("kind", ["integers", "text"])
def test_safetensors(tmp_path, kind):
    ids = np.arange(60) + 10**15
    if kind == "text":
        ids = np.array([f"0{i} é" for i in range(60)], dtype=object)
    gru = model_of(item_ids=ids, embedding=4, layers=[7, 5])
    path = tmp_path / "m.safetensors"
    gru.export_safetensors(str(path))
    found = safetensors.load_file(path)
    for name, array in gru.weights().items():
        assert found[name].dtype == array.dtype and (found[name] == array).all()
    assert (found["support"] == gru.support).all()
    if kind == "text":
        ends = np.cumsum(found["item_ids.lengths"])
        text = found["item_ids.utf8"].tobytes()
        starts = [0, *ends[:-1]]
        assert [text[a:b].decode() for a, b in zip(starts, ends)] == ids.tolist()
    else:
        assert (found["item_ids"] == ids).all()
    with sys.modules["safetensors"].safe_open(path, "np") as file:
        metadata = file.metadata()
    assert json.loads(metadata["parameters"]) == gru.settings.as_dict()
    assert (metadata["format"], metadata["version"]) == ("gru4rec-safetensors", "1")


def test_elsewhere_in_float64():
    runs(__file__, "device=cpu,floatX=float64", "(one-hot or layers or ties) and not elsewhere")


def test_elsewhere_on_a_gpu(gpu):
    gpu.runs(__file__, "(ties and relu or tanh-layers0) and not elsewhere")


# ---------------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize("name", exports.FORMATS)
def test_files_that_exist(tmp_path, name):
    gru = model_of()
    export = getattr(gru, f"export_{name}")
    path = tmp_path / f"m.{name}"
    export(str(path))
    export(str(path))  # an earlier export
    path.write_text("a user's notes")
    with pytest.raises(InputError, match=r"it exists and is not .*--force"):
        export(str(path))
    assert path.read_text() == "a user's notes"
    export(str(path), force=True)
    assert exports.FORMATS[name].is_one(str(path))
    gru.savemodel(str(tmp_path / "model"))
    with pytest.raises(InputError, match="it exists and is not"):
        export(str(tmp_path / "model"))
    with pytest.raises(InputError, match="existing, writable directory"):
        export(str(tmp_path / "none" / path.name))
    with pytest.raises(InputError, match="expected a path, got 7"):
        export(7)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "model"]


def test_untrained_models_and_broken_weights(tmp_path):
    with pytest.raises(InputError, match="not trained"):
        GRU4Rec().export_onnx(str(tmp_path / "m.onnx"))
    gru = model_of()
    gru.Wy.set_value(np.full((60, 9), np.nan, np.float32))
    for name in exports.FORMATS:
        with pytest.raises(InputError, match="Wy hold NaN"):
            getattr(gru, f"export_{name}")(str(tmp_path / "m"))
    assert not list(tmp_path.iterdir())


def test_models_too_large_for_onnx(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "MOST_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"m\.onnx: an ONNX file has at most 2 GB, .*safetensors"):
        model_of().export_onnx(str(tmp_path / "m.onnx"))
    assert not list(tmp_path.iterdir())


def test_activations_without_a_form_in_onnx(tmp_path, monkeypatch):
    monkeypatch.delitem(onnx_export._ACTIVATIONS, "tanh")
    with pytest.raises(InputError, match=r"m\.onnx: the activation tanh has no form in ONNX"):
        model_of().export_onnx(str(tmp_path / "m.onnx"))
    assert not list(tmp_path.iterdir())


def test_variants_with_a_step_of_their_own(tmp_path):
    class OtherCell(Network):
        def hidden(self, rows, states, dropout=lambda x, p: x):
            return [2 * h for h in super().hidden(rows, states, dropout)]

    class Variant(GRU4Rec):
        network_class = OtherCell

    gru = Variant(layers=[9])
    arrays = model_of().weights()
    gru.take(OtherCell(gru.settings, arrays), np.arange(60))
    with pytest.raises(InputError, match=r"Variant computes its step in a way of its own"):
        gru.export_onnx(str(tmp_path / "m.onnx"))
    assert not list(tmp_path.iterdir())
    gru.export_safetensors(str(tmp_path / "m.safetensors"))


# ---------------------------------------------------------------------------- the command line

SETTINGS = "layers=8,batch_size=8,n_sample=16,n_epochs=1,constrained_embedding=True"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    options = ("-ps", SETTINGS, "-s", "model", "--export", "first.onnx", "-t", TEST)
    done = succeeds(run_py(TRAIN, *options, cwd=folder))
    lines = [line.split()[0] for line in done.lines]
    assert lines.index("Saving") < lines.index("Exporting") < lines.index("Starting")
    return folder


def test_exports_of_a_saved_model(folder):
    done = succeeds(run_py("model", "-l", "--export", "second.onnx", cwd=folder))
    assert done.lines[-1] == "Exporting model to: second.onnx"
    assert (folder / "second.onnx").read_bytes() == (folder / "first.onnx").read_bytes()
    succeeds(run_py("model", "-l", "--export", "m.safetensors", cwd=folder))
    assert (safetensors.load_file(folder / "m.safetensors")["Wy"] != 0).any()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--export", "out.pt"), "give a name that ends in .onnx or .safetensors"),
        (("--export", ""), "an empty path: give a name that ends in"),
        (("--export", "no/m.onnx"), "existing, writable directory"),
        (("--export", "notes.onnx"), "it exists and is not an export of a model (onnx)"),
        (("--export", "model.onnx", "--force"), "it is the model"),
        (("--export", "x.onnx", "-t", "x.onnx", "--force"), "x.onnx: no such file"),
    ],
)
def test_mistakes(folder, tmp_path, options, what):
    (tmp_path / "notes.onnx").write_text("notes")
    (tmp_path / "model.onnx").write_bytes((folder / "model").read_bytes())
    before = files_in(tmp_path)
    assert what in complaint(run_py("model.onnx", "-l", *options, cwd=tmp_path))
    assert files_in(tmp_path) == before


def test_mistakes_before_a_training(tmp_path):
    variant = (
        "import gru4rec\n"
        "class Net(gru4rec.Network):\n"
        "    def hidden(self, *args, **names):\n"
        "        return super().hidden(*args, **names)\n"
        "class GRU4Rec(gru4rec.GRU4Rec):\n"
        "    network_class = Net\n"
    )
    (tmp_path / "v.py").write_text(variant)
    done = run_py(TRAIN, "-ps", SETTINGS, "-g", "v.py", "--export", "m.onnx", cwd=tmp_path)
    assert "a way of its own" in complaint(done)
    assert "Started training" not in done.out
    done = run_py(TRAIN, "--check", "--export", "m.onnx", cwd=tmp_path)
    assert "leave it out with --check" in complaint(done)
    done = run_py(TRAIN, "-ps", SETTINGS, "-s", "m.onnx", "--export", "m.onnx", cwd=tmp_path)
    assert "it is the file of -s" in complaint(done)
    assert [name for name in files_in(tmp_path) if "__pycache__" not in name] == ["v.py"]


def test_without_the_libraries(tmp_path, folder):
    for name in exports.FORMATS:
        (tmp_path / name).mkdir()
        error = f"raise ModuleNotFoundError(name={name!r})"
        (tmp_path / name / "__init__.py").write_text(error)
        done = run_py(
            folder / "model", "-l", "--export", f"m.{name}", cwd=tmp_path, PYTHONPATH=str(tmp_path)
        )
        assert f"install it with `pip install {name}`" in complaint(done)
