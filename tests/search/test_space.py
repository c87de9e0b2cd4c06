"""Search spaces: what the files may hold, which values come out, what is refused."""

from __future__ import annotations

import json
import tempfile
from decimal import Decimal
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit import parameters
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.search import methods
from gru4rec_toolkit.search.space import (
    DTYPES,
    SearchParameter,
    check_space,
    grid_values,
    read_space,
    space_table,
)

SPACES = Path(__file__).resolve().parents[2] / "paramspaces"
XE = {"loss": "cross-entropy", "final_act": "softmax", "logq": 1.0, "constrained_embedding": True}


def read(tmp_path, *lines):
    path = tmp_path / "space.json"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return read_space(str(path))


def one(tmp_path, name="layers", dtype="int", values=(8, 64), **fields):
    (parameter,) = read(tmp_path, {"name": name, "dtype": dtype, "values": list(values), **fields})
    return parameter


@pytest.mark.parametrize(
    "name, fixed, n_parameters",
    [
        ("gru4rec_xe_standard_parspace.json", XE, 7),
        ("gru4rec_bprmax_standard_parspace.json", {"constrained_embedding": True}, 9),
    ],
)
def test_shipped_spaces(name, fixed, n_parameters):
    space = read_space(str(SPACES / name))
    assert len(space) == n_parameters
    check_space(space, fixed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(50):
        trial = study.ask()
        chosen = {p.name: p.suggest(trial) for p in space}
        values = parameters.convert(chosen)
        parameters.check_combination({**parameters.defaults(), **fixed, **values})
        for p in space:
            # 0.30000000000000004 is neither passed on nor recorded
            assert len(chosen[p.name]) <= 7 and p.text(trial.params[p.name]) == chosen[p.name]


@settings(deadline=None)
@given(
    low=st.decimals(-5, 5, places=3),
    step=st.decimals("0.001", 2, places=3),
    n_steps=st.integers(0, 50),
    place=st.integers(0, 50),
)
def test_steps_are_exact(low, step, n_steps, place):
    place = min(place, n_steps)
    p = SearchParameter(
        "learning_rate", "float", (low, low + n_steps * step), step, False, "here"
    )
    held = float(low) + place * float(step)
    assert Decimal(p.text(held)) == low + place * step
    assert len(p.grid()) == n_steps + 1


def test_values_stay_in_a_range_that_its_steps_do_not_fill(tmp_path):
    p = one(tmp_path, values=(8, 63), step=16)
    assert p.range == "8 .. 56" and p.grid() == [8, 24, 40, 56]
    p = one(tmp_path, "momentum", "float", (0.0, 0.5), step=0.2)
    assert p.range == "0 .. 0.4" and p.samples() == ["0", "0.2", "0.4"]


def test_categories_become_texts(tmp_path):
    p = one(tmp_path, "layers", "categorical", [100, [100, 50], "64/32"])
    assert p.values == ("100", "100/50", "64/32")
    p = one(tmp_path, "time_sort", "categorical", [True, False])
    assert p.values == ("True", "False")
    p = one(tmp_path, "adapt", "categorical", ["adam", None])
    assert p.values == ("adam", "None")
    check_space([p], {})


def test_logarithmic_scale(tmp_path):
    p = one(tmp_path, "learning_rate", "float", (0.001, 0.5), log=True)
    assert p.scale == "LOG" and p.grid() is None
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3)).ask()
    assert float(p.suggest(trial)) == trial.params["learning_rate"]
    assert trial.distributions["learning_rate"].log
    p = one(tmp_path, "layers", "int", (8, 512), log=True)
    assert 8 <= int(p.suggest(trial)) <= 512


def test_the_table(tmp_path):
    space = read(
        tmp_path,
        {"name": "layers", "dtype": "int", "values": [64, 512], "step": 32},
        "",
        {"name": "learning_rate", "dtype": "float", "values": [0.01, 0.25], "log": True},
        {"name": "final_act", "dtype": "categorical", "values": ["elu-0.5", "linear"]},
    )
    head, *rows = (line.split() for line in space_table(space).splitlines())
    assert head == ["PARAMETER", "TYPE", "RANGE", "STEP", "SCALE"]
    assert rows[0] == ["layers", "int", "64", "..", "512", "32", "UNIFORM"]
    assert rows[1] == ["learning_rate", "float", "0.01", "..", "0.25", "-", "LOG"]
    assert rows[2] == ["final_act", "categorical", "{elu-0.5,", "linear}", "-", "-"]


def number(high, step="1"):
    return f'{{"name": "bpreg", "dtype": "float", "values": [0, {high}], "step": {step}}}'


BAD_LINES = {
    "no JSON": ("{'name': 'layers'}", "not valid JSON"),
    "half a line": ('{"name": "layers",', "not valid JSON"),
    "a list": ("[1, 2]", "a JSON object"),
    "no number": ('{"name": "momentum", "dtype": "float", "values": [0, NaN]}', "NaN is no"),
    "unknown field": ({"name": "layers", "dtype": "int", "values": [1, 2], "steps": 1}, "'steps'"),
    "field missing": ({"name": "layers", "values": [1, 2]}, "'dtype' is missing"),
    "unknown parameter": (
        {"name": "layrs", "dtype": "int", "values": [1, 2]}, "'layrs', did you mean layers?; the p",
    ),
    "name no text": ({"name": ["layers"], "dtype": "int", "values": [1, 2]}, "unknown parameter"),
    "unknown dtype": ({"name": "layers", "dtype": "integer", "values": [1, 2]}, "'integer'"),
    "dtype no text": ({"name": "layers", "dtype": ["int"], "values": [1, 2]}, "expected dtype"),
    "no list": ({"name": "layers", "dtype": "int", "values": 5}, "values as a list"),
    "three values": ({"name": "layers", "dtype": "int", "values": [1, 2, 3]}, "[1, 2, 3]"),
    "fraction": ({"name": "layers", "dtype": "int", "values": [1.5, 2]}, "two integers"),
    "text": ({"name": "momentum", "dtype": "float", "values": ["0", "1"]}, "two numbers"),
    "truth": ({"name": "layers", "dtype": "int", "values": [True, 9]}, "two integers"),
    "order": ({"name": "layers", "dtype": "int", "values": [9, 2]}, "above the highest"),
    "no step": ({"name": "layers", "dtype": "int", "values": [1, 9], "step": 0}, "step above 0"),
    "int step": ({"name": "layers", "dtype": "int", "values": [1, 9], "step": 0.5}, "step above 0"),
    "log of 0": ({"name": "lmbd", "dtype": "float", "values": [0, 1], "log": True}, "above 0"),
    "log and step": (
        {"name": "lmbd", "dtype": "float", "values": [1, 9], "log": True, "step": 0.1},
        "exclude each other",
    ),
    "log no truth": ({"name": "lmbd", "dtype": "float", "values": [1, 9], "log": 1}, "log true"),
    "categories twice": (
        {"name": "layers", "dtype": "categorical", "values": [100, "100"]}, "listed twice",
    ),
    "category with step": (
        {"name": "layers", "dtype": "categorical", "values": [1], "step": 1}, "neither step",
    ),
    "category with comma": (
        {"name": "layers", "dtype": "categorical", "values": ["1,loss=top1"]}, "comma",
    ),
    "category an object": ({"name": "loss", "dtype": "categorical", "values": [{}]}, "expected"),
    "exponent": (number("1e999999999"), "number 1e999999999: expected at most 28 digits"),
    "exponent of an exponent": (number("1e" + "9" * 30), "number 1e9999"),
    "too small": (number("1", "1e-400"), "number 1e-400"),
    "many digits": (number("9" * 5000), "number 99999"),
    "infinite": (number("-Infinity"), "-Infinity is no number"),
    "step of nothing": (number("1e20", "0.001"), "the step 0.001 is too small beside 1000000"),
    "low of nothing": (
        '{"name": "bpreg", "dtype": "float", "values": [1e-26, 0.643052], "step": 0.1}',
        "the lowest value 0.00000000000000000000000001 has more digits beside the step 0.1",
    ),
    "large integer": (
        {"name": "n_sample", "dtype": "int", "values": [0, 2**53 + 2]}, "integers up to",
    ),
    "field twice": ('{"name": "bpreg", "dtype": "float", "values": [0, 1], "name": "x"}', "'name'"),
    "brackets": ("[" * 100_000, "too many brackets"),
    "lists in lists": (number("[" * 500 + "]" * 500), "two numbers, got [0, [...]]"),
    "surrogate": (
        '{"name": "session_key", "dtype": "categorical", "values": ["\\ud800"]}', "be printed",
    ),
    "NUL": (
        '{"name": "session_key", "dtype": "categorical", "values": ["a\\u0000"]}', "be printed",
    ),
    "space": ({"name": "item_key", "dtype": "categorical", "values": [" x"]}, "with a space"),
    "long name": ({"name": "x" * 10_000, "dtype": "int", "values": [1, 2]}, "unknown parameter"),
}  # fmt: skip


@pytest.mark.parametrize("line, words", BAD_LINES.values(), ids=BAD_LINES)
def test_bad_lines_are_named(tmp_path, line, words):
    good = {"name": "batch_size", "dtype": "int", "values": [32, 64]}
    with pytest.raises(InputError, match="line 3") as caught:
        read(tmp_path, good, "", line)
    assert words in str(caught.value) and "space.json" in str(caught.value)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_files_of_other_editors(tmp_path):
    line = '{"name": "NAME", "dtype": "int", "values": [1, 2]}'
    lines = [line.replace("NAME", name) for name in ("layers", "n_epochs", "batch_size")]
    for number, end in enumerate(("\n", "\r\n", "\r")):
        path = tmp_path / f"{number}.json"
        path.write_bytes(b"\xef\xbb\xbf" + end.join(lines).encode())
        assert len(read_space(str(path))) == 3


NUMBERS = ["0", "-0", "-0.0", "1", "0.1", "1e37", "1e-37", "1e300", "1e-400", "1e9999999999", "1E5"]
NUMBERS += ["NaN", "true", "null", '"1"', "[]", "[[1]]", "{}", "4294967295", "9" * 400, '"\\ud800"']
SNIPPETS = [b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"[" * 5000, b"{", b"-", b"e9"]


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(["layers", "bpreg", "seed", "momentum", "learning_rate", "loss", "x"]),
    dtype=st.sampled_from(DTYPES),
    values=st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3),
    step=st.none() | st.sampled_from(NUMBERS),
    log=st.booleans(),
    place=st.floats(0, 1),
    snippet=st.just(b"") | st.sampled_from(SNIPPETS),
)
def test_any_space_can_be_searched_or_is_refused(name, dtype, values, step, log, place, snippet):
    fields = f'"name": "{name}", "dtype": "{dtype}", "values": [{", ".join(values)}]'
    fields += f', "step": {step}' if step else ', "log": true' if log else ""
    line = f"{{{fields}}}".encode()
    cut = int(place * len(line))
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(line[:cut] + snippet + line[cut:])
        file.flush()
        try:
            space = read_space(file.name)
            check_space(space, {})
            for sampler in ("grid", "random"):
                methods.check_sampler(sampler, space)
        except InputError as err:
            assert len(str(err)) < 1000 and "\n" not in str(err)
            return
    assert len(space_table(space).encode()) < 1000
    methods.make_sampler("grid", 1, space)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    chosen = {p.name: p.suggest(trial) for p in space}
    parameters.convert(chosen)
    string = ",".join(f"{name}={value}" for name, value in chosen.items())
    assert parameters.parse_string(string) == chosen


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json.*check the path"):
        read_space(str(tmp_path / "nowhere.json"))
    with pytest.raises(InputError, match="empty"):
        read(tmp_path, "", "")
    line = {"name": "layers", "dtype": "int", "values": [1, 2]}
    with pytest.raises(InputError, match="line 2: layers is searched twice"):
        read(tmp_path, line, line)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_space(str(tmp_path / "binary"))
    (tmp_path / "data.tsv").write_bytes(b"1\t2\t3\n" * 200_000)
    with pytest.raises(InputError, match="larger than 1 MiB"):
        read_space(str(tmp_path / "data.tsv"))


UNUSABLE = {
    "dropout of 1": (("dropout_p_embed", "float", (0, 1)), {}, "dropout_p_embed: expected"),
    "half a unit": (("layers", "float", (8, 9)), {}, "layers: expected"),
    "whole float": (("layers", "float", (64, 64)), {}, "layers: expected .*'64.0'"),
    "category": (("loss", "categorical", ["bpr-max", "bprmax"]), {}, "'bprmax'"),
    "fixed too": (("layers", "int", (8, 9)), {"layers": [100]}, "fixed at .* and searched"),
    "loss against activation": (
        ("final_act", "categorical", ["elu-1", "softmax"]), {}, "softmax does not go with loss",
    ),
    "one session, no samples": (("batch_size", "int", (1, 8)), {"n_sample": 0}, "no negative"),
    "smoothing of bpr-max": (("smoothing", "float", (0, 0.5)), {}, "smoothing works with"),
}  # fmt: skip


@pytest.mark.parametrize("parameter, fixed, words", UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_trained_is_refused(tmp_path, parameter, fixed, words):
    p = one(tmp_path, *parameter)
    with pytest.raises(InputError, match=words) as caught:
        check_space([p], fixed)
    assert "space.json" in str(caught.value)


def test_grids(tmp_path):
    space = read(
        tmp_path,
        {"name": "layers", "dtype": "int", "values": [8, 16], "step": 4},
        {"name": "loss", "dtype": "categorical", "values": ["bpr", "top1"]},
    )
    assert grid_values(space, 6) == {"layers": [8, 12, 16], "loss": ["bpr", "top1"]}
    with pytest.raises(InputError, match="6 combinations"):
        grid_values(space, 5)
    with pytest.raises(InputError, match="lmbd has none"):
        grid_values([one(tmp_path, "lmbd", "float", (0, 1))], 5)
    # counted, not listed
    large = one(tmp_path, "seed", "int", (0, 2**32 - 1))
    assert large.n_values() == 2**32
    with pytest.raises(InputError, match="4,294,967,296 combinations"):
        grid_values([large], 100)
    fine = one(tmp_path, "bpreg", "float", (0, 1), step=1e-15)
    with pytest.raises(InputError, match=r"4\.3e\+24 combinations"):
        grid_values([large, fine], 100)


def test_values_of_gp_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "NEEDS", {})
    large = one(tmp_path, "seed", "int", (0, 2**32 - 1))
    with pytest.raises(InputError, match="seed has 4,294,967,296 values, but --sampler gp"):
        methods.check_sampler("gp", [large])
    methods.check_sampler("gp", [one(tmp_path)])


def test_many_categories_are_read(tmp_path):
    values = [f"elu-{i / 1000}" for i in range(50_000)]
    assert one(tmp_path, "final_act", "categorical", values).n_values() == len(values)
