"""What stands beside the service: its README, the load test, the approximate index."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from helpers import redis, service
from helpers.served_models import N_ITEMS, exported
from helpers.service import SERVING, Service

service.needed()

README = (SERVING / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for block in BLOCKS for line in block.splitlines()]


def of_program(name: str) -> list[list[str]]:
    """Return the arguments of the README's commands that run a program."""
    return [c[2:] for c in COMMANDS if c[:2] == ["python", f"examples/serving/{name}"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    exported(folder, "numbers")[1].rename(folder / "model.onnx")
    return folder


@pytest.fixture
def modules(monkeypatch):
    """Make the service's modules importable, as its programs import them."""
    monkeypatch.syspath_prepend(str(SERVING))


def run(*arguments: str, folder) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------------------- the README


def test_every_command_is_run_here():
    known = {"service.py", "load_test.py", "approximate.py"}
    for command in COMMANDS:
        is_ours = command[0] == "python" and command[1].rpartition("/")[2] in known
        assert is_ours or command[0] in ("curl", "pip"), command
    assert ["pip", "install", "-r", "examples/serving/requirements.txt"] in COMMANDS


@pytest.mark.parametrize("arguments", of_program("service.py"), ids=" ".join)
def test_the_commands_that_start_it(folder, arguments):
    """With the requests of the README to each; of those that keep an index, twice."""
    arguments = list(arguments)
    port = arguments.index("--port")
    assert arguments[port + 1] == "8000"
    del arguments[port : port + 2]  # another program may have that one
    server = None
    if "--redis" in arguments:
        redis.needed()
        server = redis.RedisServer(folder)
        arguments[arguments.index("--redis") + 1] = server.url
    if "--approximate" in arguments:
        pytest.importorskip("usearch")
    curls = [command for command in COMMANDS if command[0] == "curl"]
    assert len(curls) == 6
    try:
        arguments[0] = str(folder / arguments[0])
        with Service(folder, *arguments) as one:
            for _, *words in curls:
                (url,) = [word for word in words if word.startswith("http://localhost:8000/")]
                body = words[words.index("-d") + 1] if "-d" in words else None
                method = "POST" if body else "DELETE" if "DELETE" in words else "GET"
                path = url.removeprefix("http://localhost:8000")
                answer = one.answer(method, path, body and body.encode())
                if "click" in path:
                    assert answer.keys() == {"items", "scores", "known"}
    finally:
        if server is not None:
            server.stop()


def test_the_requirements_are_all_that_is_imported():
    """And each of them is imported, or used by uvicorn."""
    lines = (SERVING / "requirements.txt").read_text().splitlines()
    named = {re.match(r"\w+", line)[0] for line in lines if line and line[0] != "#"}
    programs = ("service", "web", "batcher", "exported", "sessions", "approximation", "problems")
    words = "\n".join((SERVING / f"{name}.py").read_text() for name in programs)
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", words, re.MULTILINE))
    others = imported - sys.stdlib_module_names - {*programs}
    assert others - {"starlette"} == named - {"uvloop", "httptools"}  # starlette is fastapi's


# ---------------------------------------------------------------------------- the load test


def test_the_load_test(folder):
    (arguments,) = of_program("load_test.py")
    assert arguments == []
    small = "--items 400 --units 8 --clients 1 8 --rate 0 300 --seconds 0.5 --checked 50"
    rows = run(str(SERVING / "load_test.py"), *small.split(), folder=folder).splitlines()[2:]
    assert len(rows) == 6
    for row in rows[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == rows[0].strip("|").count("|") + 1
        lost, wrong = cells[-2:]
        wrong, _, checked = wrong.partition(" of ")
        assert (lost, wrong) == ("0", "0") and int(checked) >= 50


def test_the_load_test_of_a_running_service(folder):
    with Service(folder, folder / "model.onnx") as one:
        few = f"--url http://127.0.0.1:{one.port} --clients 2 --rate 100 --seconds 0.3"
        arguments = [str(SERVING / "load_test.py"), str(folder / "model.onnx"), *few.split()]
        assert " | 0 | 0 of " in run(*arguments, folder=folder)


def test_the_load_test_notices_what_is_wrong(folder, modules):
    import exported as exported_model
    import load_test

    model = exported_model.Exported(str(folder / "model.onnx"))
    sent = []
    for number, items in enumerate([[1000, 1001, 1002], [1050, 1051, 1052]]):
        states = np.zeros((1, model.units), model.dtype)
        for item in items:
            position = np.array([model.position(item)])
            best, scores, states = model.run(position, states, load_test.K)
            answer = {
                "items": [model.item_ids[i] for i in best[0]],
                "scores": scores[0].tolist(),
                "known": True,
            }
            sent.append(load_test.Sent(str(number), item, 0.1, json.dumps(answer).encode()))
    assert load_test.check(model, sent, 100) == (6, 0)
    mixed = [*sent]
    mixed[1], mixed[4] = (
        sent[1]._replace(answer=sent[4].answer),
        sent[4]._replace(answer=sent[1].answer),
    )
    assert load_test.check(model, mixed, 100) == (6, 2)
    assert load_test.check(model, [sent[0], *sent[2:]], 100) == (5, 1)  # a click that was lost
    shorter = json.dumps({"items": [1], "scores": [1.0]}).encode()
    assert load_test.check(model, [sent[0]._replace(answer=shorter)], 100) == (1, 1)


# ---------------------------------------------------------------------------- the index


@pytest.mark.parametrize("name", ["numbers", "texts", "elu"])
def test_the_approximate_list(tmp_path, modules, name):
    """So few items are all found, with the scores of the exact list; ties in another order."""
    pytest.importorskip("usearch")
    import approximation
    import exported as exported_model

    _, path = exported(tmp_path, name)
    exact = exported_model.Exported(str(path))
    index = approximation.Approximate(str(path))
    rng = np.random.default_rng(0)
    states = np.zeros((9, exact.units), exact.dtype)
    for k in (1, 20, 150, 1000):
        items = rng.integers(-1, N_ITEMS, 9)
        best, scores, new = exact.run(items, states, k)
        found, of_index, of_states = index.run(items, states, k)
        np.testing.assert_allclose(of_states, new, rtol=1e-5, atol=1e-6)
        assert found.shape == best.shape
        np.testing.assert_allclose(of_index, scores, rtol=1e-4, atol=1e-5)
        for row in found:
            assert len({*row}) == len(row)
        states = new
        if k >= 150:  # pairs of equal rows at the end of the list aside
            shared = [len({*a} & {*b}) / len(a) for a, b in zip(found, best)]
            assert min(shared) > 0.97


def test_an_index_that_finds_fewer(tmp_path, modules):
    """The list is shorter, and holds nothing else."""
    pytest.importorskip("usearch")
    from approximation import Approximate
    from batcher import Batcher, Job
    from sessions import Codec, MemoryStore

    _, path = exported(tmp_path, "numbers")
    model = Approximate(str(path))
    model.index.remove(np.arange(250))
    zero = np.zeros((20, model.units), model.dtype)
    best, scores, _ = model.run(np.arange(250, 270), zero, 100)
    assert (best[:, :50] >= 250).all() and (best[:, 50:] == -1).all()
    assert np.isfinite(scores[:, :50]).all() and (scores[:, 50:] == -np.inf).all()
    batcher = Batcher(model, MemoryStore(Codec(model), 1000, 1000))

    async def answer(job):
        batcher.start()
        try:
            return await batcher.answer(job)
        finally:
            batcher.stop()

    best = asyncio.run(answer(Job("a", [260], 100, exclude_seen=True)))
    assert {*best.positions.tolist()} == {*range(250, N_ITEMS)} - {260}
    assert len(best.positions) == 49 and np.isfinite(best.scores).all()


def test_a_list_of_the_approximate_service(tmp_path, modules):
    pytest.importorskip("usearch")
    gru, path = exported(tmp_path, "numbers")
    file = tmp_path / "model.index"
    clicks = [1003, 1200, 1003]
    answers = []
    for _ in range(2):  # the first builds the index, the second loads it
        with Service(tmp_path, path, "--approximate", file) as one:
            answers.append(one.click("a", clicks, exclude_seen=True, k=40))
            kept = file.stat().st_ino
    assert answers[0] == answers[1] and file.stat().st_ino == kept
    expected = gru.recommend([clicks], 40, exclude_seen=True)
    assert len({*answers[0]["items"]} - {*clicks}) == 40
    np.testing.assert_allclose(answers[0]["scores"], expected.scores[0], rtol=1e-5, atol=1e-5)


def test_indexes_that_cannot_be_used(tmp_path, modules):
    pytest.importorskip("usearch")
    import approximation
    from problems import StartError

    _, path = exported(tmp_path, "numbers")
    _, other = exported(tmp_path, "numbers", seed=1)
    file = tmp_path / "index"
    approximation.Approximate(str(path), file=str(file))
    whole = file.read_bytes()
    with pytest.raises(StartError, match="the index of another model; give another path"):
        approximation.Approximate(str(other), file=str(file))
    assert file.read_bytes() == whole
    for damaged in (b"", b"x" * 1000, whole[:-1], whole + b"x", whole[:40] + b"!" + whole[41:]):
        file.write_bytes(damaged)
        with pytest.raises(StartError, match="no index of the service, or a damaged one"):
            approximation.Approximate(str(path), file=str(file))
        assert file.read_bytes() == damaged
    for bad, what in [
        (tmp_path, "cannot be read"),
        (tmp_path / "no" / "index", "cannot be written"),
    ]:
        with pytest.raises(StartError, match=what):
            approximation.Approximate(str(path), file=str(bad))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "index",
        "numbers_0.onnx",
        "numbers_1.onnx",
    ]


def test_the_table_of_the_index(folder):
    pytest.importorskip("usearch")
    (arguments,) = of_program("approximate.py")
    assert arguments == ["--items", "40000", "200000", "1000000"]
    small = "--items 500 900 --units 8 --states 20"
    rows = run(str(SERVING / "approximate.py"), *small.split(), folder=folder).splitlines()[2:]
    assert len(rows) == 4
    for row in rows[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == rows[0].strip("|").count("|") + 1
        assert float(cells[1]) > 0.9
