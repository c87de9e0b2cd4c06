"""The service of examples/serving over HTTP, as a process that has no Theano: what it answers."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from urllib.parse import quote

import numpy as np
import pytest
from helpers import service as running
from helpers.served_models import FIRST, N_ITEMS, exported
from helpers.service import SERVING, Service, in_threads, until

running.needed()

UNKNOWN = {"numbers": 5, "texts": "nothing", "relu": -3}


@pytest.fixture(scope="module", params=["numbers", "texts", "relu"])
def served(request, tmp_path_factory):
    """A model and the service of it."""
    folder = tmp_path_factory.mktemp(request.param)
    gru, path = exported(folder, request.param)
    with Service(folder, path) as service:
        yield request.param, gru, service


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """The service of the model whose ids are numbers."""
    folder = tmp_path_factory.mktemp("one")
    gru, path = exported(folder, "numbers")
    with Service(folder, path) as service:
        yield gru, path, service


def check(answer: dict, items: np.ndarray, scores: np.ndarray) -> None:
    """Compare an answer with a row of `GRU4Rec.recommend`."""
    kept = np.array([item is not None for item in items])
    assert answer["items"] == items[kept].tolist()
    np.testing.assert_allclose(answer["scores"], scores[kept].astype(float), rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------- lists


@pytest.mark.parametrize(("k", "seen"), [(20, False), (7, True), (N_ITEMS, True), (1000, False)])
def test_as_recommend(served, k, seen):
    """After every click; equal rows make ties, and relu makes more."""
    name, gru, service = served
    rng = np.random.default_rng(k)
    for number in range(3):
        session = f"{k}-{seen}-{number}"
        items = gru.item_ids[rng.integers(0, N_ITEMS, 5)].tolist()
        items.insert(2, UNKNOWN[name])
        items.append(items[0])
        expected = gru.recommend([items[: n + 1] for n in range(len(items))], k, seen)
        for item, *row in zip(items, *expected):
            answer = service.click(session, item, k=k, exclude_seen=seen)
            check(answer, *row)
            assert answer["known"] == (item != UNKNOWN[name])
        running = gru.session()
        for item in items:
            running.click(item)
        check(service.top(session, k, seen), *running.top(k, seen))


def test_several_items_at_once(served):
    name, gru, service = served
    items = gru.item_ids[[3, 250, 3, 41]].tolist()
    one_by_one = [service.click("slow", item) for item in items][-1]
    items.insert(3, UNKNOWN[name])
    answer = service.click("quick", items)
    assert answer.pop("known") == [True, True, True, False, True]
    assert answer["items"] == one_by_one["items"]
    np.testing.assert_allclose(answer["scores"], one_by_one["scores"], rtol=1e-5, atol=1e-5)


def test_a_session_without_known_clicks(served):
    name, gru, service = served
    before = service.answer("GET", "/metrics")
    if name == "relu":  # its file does not tell which items are popular
        for request in (("GET", "/sessions/none/top"), ("POST", "/sessions/none/click")):
            status, answer = service.request(*request, {"item": UNKNOWN[name]})
            assert status == 409 and "which items are popular" in answer["error"]
        return
    popular = gru.recommend([[]], k=30)
    for seen in (False, True):
        check(service.top("none", 30, seen), *(part[0] for part in popular))
    answer = service.click("none", UNKNOWN[name], k=30, exclude_seen=True)
    check(answer, *(part[0] for part in popular))
    assert answer["known"] is False
    after = service.answer("GET", "/metrics")
    assert after["unknown_items"] - before["unknown_items"] == 1
    assert after["sessions"] == before["sessions"]


def test_ids_are_compared_by_value(numbers):
    _, _, service = numbers
    for item in (1000, "1000", 1000.0, 1e3):
        assert service.click("values", item)["known"], item
    for item in ("01000", " 1000", "+1000", "1_000", "x", "", 999, 10**30, "9" * 25, "\ud800"):
        assert not service.click("values", item)["known"], item


def test_looking_changes_nothing(numbers):
    _, _, service = numbers
    clicked = service.click("look", 1003)
    for _ in range(2):
        seen = service.top("look")
        assert (seen["items"], seen["scores"]) == (clicked["items"], clicked["scores"])


def test_a_deleted_session_begins_anew(numbers):
    _, _, service = numbers
    first = service.click("gone", 1001)
    assert service.click("gone", 1002) != first
    assert service.answer("DELETE", "/sessions/gone") == {"deleted": True}
    assert service.answer("DELETE", "/sessions/gone") == {"deleted": False}
    assert service.click("gone", 1001) == first


def test_ids_of_sessions_are_texts_of_any_language(numbers):
    _, _, service = numbers
    keys = ["a b", "ä", "会话", "a+b", "a%2Bb", "A", "a", "x" * 200]
    answers = [service.click(quote(key, safe=""), FIRST + i) for i, key in enumerate(keys)]
    for key, answer in zip(keys, answers):
        assert service.top(quote(key, safe=""))["items"] == answer["items"]


def test_more_items_than_are_remembered(numbers, monkeypatch):
    """The latest distinct items are left out of the list; the memory of a session is bounded."""
    monkeypatch.syspath_prepend(str(SERVING))
    import sessions

    session = sessions.Session(np.zeros(2), np.zeros(0, np.int32))
    for item in [*range(1500), 600, 600]:
        session.take(item, session.states)
    assert session.seen.tolist() == [*range(500, 600), *range(601, 1500), 600]


# ---------------------------------------------------------------------------- time and number


@pytest.fixture(scope="module")
def short_lived(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    _, path = exported(folder, "numbers")
    with Service(folder, path, "--ttl", "0.3", "--max_sessions", "3") as service:
        yield service


def test_a_session_ends(short_lived):
    popular = short_lived.top("nobody")
    assert short_lived.click("short", 1001)["items"] != popular["items"]
    until(lambda: short_lived.top("short") == popular)
    assert short_lived.answer("GET", "/metrics")["sessions"] == 0


def test_the_sessions_that_rest_longest_go(tmp_path, monkeypatch):
    folder = tmp_path
    _, path = exported(folder, "numbers")
    with Service(folder, path, "--max_sessions", "3") as service:
        popular = service.top("nobody")["items"]
        for session in ("a", "b", "c", "a", "d"):
            service.click(session, 1001)
        service.click("a", 5)  # an unknown item keeps a session, too
        service.click("e", 1001)
        gone = [session for session in "abcde" if service.top(session)["items"] == popular]
        assert gone == ["b", "c"]
        assert service.answer("GET", "/metrics")["sessions"] == 3


def test_time_to_live_counts_from_the_last_click(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SERVING))
    from exported import Exported
    from sessions import Codec, MemoryStore

    _, path = exported(tmp_path, "numbers")
    codec, now = Codec(Exported(str(path))), [0.0]
    store = MemoryStore(codec, ttl=10, most=5, clock=lambda: now[0])

    def known(key):
        return len(store.load([key])[0].seen)

    def click(key):
        (session,) = store.load([key])
        session.take(4, session.states + 1)
        store.save({key: session})

    click("a")
    now[0] = 6.0
    click("b")
    assert known("a") == known("b") == 1
    now[0] = 9.9
    click("a")
    now[0] = 16.0
    assert (known("a"), known("b"), store.n_sessions()) == (1, 0, 1)
    now[0] = 19.9
    assert known("a") == 0 and not store.delete("a")


# ---------------------------------------------------------------------------- at the same time


def test_64_clients_with_a_session_each(numbers):
    """Nothing is lost, and none gets what belongs to another."""
    gru, _, service = numbers
    lists = np.random.default_rng(1).integers(FIRST, FIRST + N_ITEMS, (64, 6)).tolist()
    expected = [gru.recommend([clicks[: n + 1] for clicks in lists], k=9) for n in range(6)]
    before = service.answer("GET", "/metrics")

    def work(number: int) -> None:
        for n, item in enumerate(lists[number]):
            answer = service.click(f"client-{number}", item, k=9)
            check(answer, expected[n].items[number], expected[n].scores[number])

    in_threads(work, 64)
    after = service.answer("GET", "/metrics")
    assert after["clicks"] - before["clicks"] == 64 * 6
    assert 0 < after["batches"] - before["batches"] < 64 * 6  # some shared a run


def test_what_waits_shares_runs(tmp_path, monkeypatch):
    """In the order in which it came; what is too much is refused at once."""
    monkeypatch.syspath_prepend(str(SERVING))
    import batcher
    from exported import Exported
    from problems import RequestError
    from sessions import Codec, MemoryStore

    gru, path = exported(tmp_path, "numbers")
    model = Exported(str(path))
    monkeypatch.setattr(batcher, "MOST_WAITING", 130)
    gathers = batcher.Batcher(model, MemoryStore(Codec(model), 1000, 1000))

    async def answers() -> list:
        # 100 sessions, of which 30 have a second click
        jobs = [batcher.Job(str(n % 100), [n], clicks=True) for n in range(130)]
        tasks = [asyncio.ensure_future(gathers.answer(job)) for job in jobs]
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="too many requests are waiting"):
            await gathers.answer(batcher.Job("more"))
        gathers.start()
        found = await asyncio.gather(*tasks)
        gathers.stop()
        return found

    found = asyncio.run(answers())
    assert (gathers.n_runs, gathers.n_in_runs, gathers.n_requests) == (3, 130, 130)
    sessions = [[n] if n < 100 else [n - 100, n] for n in range(130)]
    expected = gru.recommend([[FIRST + n for n in clicks] for clicks in sessions])
    for best, items in zip(found, expected.items):
        assert (best.positions + FIRST).tolist() == items.tolist()


def test_clicks_on_one_session_from_many_clients(numbers):
    """Each is applied once: what the session saw are all of them."""
    _, _, service = numbers
    items = np.random.default_rng(2).permutation(N_ITEMS)[:160].reshape(16, 10) + FIRST

    def work(number: int) -> None:
        for item in items[number].tolist():
            answer = service.click("shared", item, k=1000, exclude_seen=True)
            assert item not in answer["items"]

    in_threads(work, 16)
    left = service.top("shared", k=1000, exclude_seen=True)["items"]
    assert sorted(left) == sorted({*range(FIRST, FIRST + N_ITEMS)} - {*items.ravel().tolist()})


def test_lists_of_clicks_do_not_mix(numbers):
    """Of two lists for one session one is applied after the other, whole."""
    gru, _, service = numbers
    rng = np.random.default_rng(3)
    for number in range(8):
        lists = rng.integers(FIRST, FIRST + N_ITEMS, (2, 12)).tolist()
        in_threads(lambda i, n=number, lists=lists: service.click(f"two-{n}", lists[i]), 2)
        orders = gru.recommend([lists[0] + lists[1], lists[1] + lists[0]])
        found = service.top(f"two-{number}")
        close = [np.allclose(found["scores"], scores, 1e-5, 1e-5) for scores in orders.scores]
        assert any(close), number


# ---------------------------------------------------------------------------- what is refused

LONG = "x" * 1001
CLICK = "/sessions/refused/click"
REFUSED = [
    ("POST", CLICK, b"", 400, "no JSON"),
    ("POST", CLICK, b'{"item": 1', 400, "no JSON"),
    ("POST", CLICK, b"\xff\xfe", 400, "no JSON"),
    ("POST", CLICK, b"[" * 60000, 400, "no JSON"),
    ("POST", CLICK, b'{"item": ' + b"9" * 5000 + b"}", 400, "no JSON"),
    ("POST", CLICK, b"x" * 70000, 413, "at most 65536 bytes"),
    ("POST", CLICK, [1000], 422, "the body: expected an object"),
    ("POST", CLICK, {}, 422, "either item or items"),
    ("POST", CLICK, {"item": 1000, "items": [1000]}, 422, "either item or items"),
    ("POST", CLICK, {"item": 1000, "K": 3}, 422, "got 'K'"),
    ("POST", CLICK, {"item": None}, 422, "item: expected an integer or a text"),
    ("POST", CLICK, {"item": True}, 422, "got True"),
    ("POST", CLICK, {"item": [1000]}, 422, "item: expected"),
    ("POST", CLICK, {"item": 1000.5}, 422, "got 1000.5"),
    ("POST", CLICK, b'{"item": NaN}', 422, "got nan"),
    ("POST", CLICK, b'{"item": 1e999}', 422, "got inf"),
    ("POST", CLICK, {"item": LONG}, 422, "at most 1000 characters"),
    ("POST", CLICK, {"items": 1000}, 422, "items: expected a list of 1 to 100"),
    ("POST", CLICK, {"items": []}, 422, "items: expected a list of 1 to 100"),
    ("POST", CLICK, {"items": [1000] * 101}, 422, "items: expected a list of 1 to 100"),
    ("POST", CLICK, {"items": [1000, {}]}, 422, "item: expected"),
    ("POST", CLICK, {"item": 1000, "k": 0}, 422, "k: expected an integer from 1 to 1000, got 0"),
    ("POST", CLICK, {"item": 1000, "k": 1001}, 422, "k: expected"),
    ("POST", CLICK, {"item": 1000, "k": "20"}, 422, "k: expected"),
    ("POST", CLICK, {"item": 1000, "k": 20.0}, 422, "k: expected"),
    ("POST", CLICK, {"item": 1000, "k": True}, 422, "k: expected"),
    ("POST", CLICK, {"item": 1000, "exclude_seen": 1}, 422, "exclude_seen: expected true or false"),
    ("POST", f"/sessions/{'x' * 201}/click", {"item": 1000}, 422, "at most 200"),
    # bytes that are no UTF-8 would all be the same character
    ("POST", "/sessions/a%ff/click", {"item": 1000}, 422, "printable characters in UTF-8"),
    ("POST", "/sessions/a%0a/click", {"item": 1000}, 422, "printable characters"),
    ("GET", "/sessions/refused/top?k=0", None, 422, "k: expected"),
    ("GET", "/sessions/refused/top?k=", None, 422, "k: expected"),
    ("GET", "/sessions/refused/top?k=%C2%B2", None, 422, "k: expected"),
    ("GET", "/sessions/refused/top?k=" + "1" * 5000, None, 422, "k: expected"),
    ("GET", "/sessions/refused/top?exclude_seen=yes", None, 422, "exclude_seen: expected"),
    ("GET", "/sessions/a%ff/top", None, 422, "printable characters in UTF-8"),
    ("DELETE", "/sessions/a%ff", None, 422, "printable characters in UTF-8"),
    ("GET", "/sessions", None, 404, "/docs"),
    ("GET", CLICK, None, 405, "/docs"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "what"), REFUSED)
def test_what_is_refused(numbers, method, path, body, status, what):
    _, _, service = numbers
    before = service.answer("GET", "/metrics")["requests"]
    found, answer = service.request(method, path, body)
    assert (found, answer.keys()) == (status, {"error"})
    assert what in answer["error"] and len(answer["error"].splitlines()) == 1
    assert len(answer["error"]) < 250
    assert service.answer("GET", "/metrics")["requests"] == before


def test_what_is_no_http(numbers):
    _, _, service = numbers
    half = f"POST {CLICK} HTTP/1.1\r\nHost: x\r\nContent-Length: 24\r\n\r\n".encode() + b'{"item"'
    for data in (
        *(b"\x00\x01\x02\r\n\r\n", b"GET /health\r\n\r\n", b"POST / HTTP/1.1\r\n"),
        half,  # a client that goes away before its body ends
    ):
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(data)
    assert service.answer("GET", "/health")["status"] == "ok"


def test_a_body_that_is_announced_too_long_is_not_waited_for(numbers):
    _, _, service = numbers
    head = f"POST {CLICK} HTTP/1.1\r\nHost: x\r\nContent-Length: {10**14}\r\n\r\n{{"
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_the_documentation(numbers):
    _, _, service = numbers
    described = service.answer("GET", "/openapi.json")["paths"]
    assert set(described) == {
        "/sessions/{session_id}/click",
        "/sessions/{session_id}/top",
        "/sessions/{session_id}",
        "/health",
        "/metrics",
    }
    body = described["/sessions/{session_id}/click"]["post"]["requestBody"]
    example = body["content"]["application/json"]["schema"]["example"]
    assert service.answer("POST", CLICK, example)["known"] is False


# ---------------------------------------------------------------------------- begin and end


def starts(*arguments: object, blocked=running.BLOCKED) -> subprocess.CompletedProcess:
    return running.run(running.command(*arguments, blocked=blocked))


def test_help_needs_nothing():
    heavy = ("fastapi", "uvicorn", "numpy", "onnxruntime", "redis", "usearch", "onnx")
    done = starts("-h", blocked=heavy)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--redis URL" in done.stdout and "--port" in done.stdout


def not_ours(folder) -> bytes:
    """Return an ONNX file of somebody else."""
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [info], [other])
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, ir_version=8, opset_imports=opset).SerializeToString()


def edited(path, name: str, text: str) -> bytes:
    """Return an export whose metadata somebody has changed."""
    import onnx

    model = onnx.load(str(path))
    for entry in model.metadata_props:
        if entry.key == name:
            entry.value = text
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("case", "what"),
    [
        ("missing", "cannot be read: No such file"),
        ("directory", "cannot be read: Is a directory"),
        ("text", "no ONNX file of a GRU4Rec model"),
        ("cut", "no ONNX file of a GRU4Rec model"),
        ("operator", "onnxruntime cannot load this file"),
        ("other", "no ONNX file of a GRU4Rec model"),
        ("version", "no ONNX file of a GRU4Rec model"),
        ("items", "no ONNX file of a GRU4Rec model"),
        ("fewer", "no ONNX file of a GRU4Rec model"),
        ("support", "no ONNX file of a GRU4Rec model"),
    ],
)
def test_models_that_cannot_be_used(tmp_path, numbers, case, what):
    _, path, _ = numbers
    model = tmp_path / "model.onnx"
    ids = list(range(N_ITEMS))
    contents = {
        "text": lambda: b"no model",
        "cut": lambda: path.read_bytes()[:-2000],
        "operator": lambda: path.read_bytes().replace(b"Sigmoid", b"Sigmoix"),
        "other": lambda: not_ours(tmp_path),
        "version": lambda: edited(path, "version", "2"),
        "items": lambda: edited(path, "item_ids", json.dumps([ids[0], *ids[:-1]])),
        "fewer": lambda: edited(path, "item_ids", json.dumps(ids[:-1])),
        "support": lambda: edited(path, "support", "[1, 2]"),
    }
    if case == "directory":
        model.mkdir()
    elif case != "missing":
        model.write_bytes(contents[case]())
    done = starts(model, "--port", "0")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert what in done.stderr and str(model) in done.stderr


def test_starts_that_fail(numbers):
    _, path, service = numbers
    for arguments, what in [
        (
            (path, "--port", service.port),
            f"cannot listen on 127.0.0.1:{service.port}: Address alre",
        ),
        ((path, "--port", 0, "--host", "no.such.host.invalid"), "cannot listen on no.such.host"),
        ((path, "--port", 0, "--redis", "nonsense"), "--redis nonsense: "),
        ((path, "--port", 0, "--redis", "redis://127.0.0.1:1"), "Redis does not answer"),
    ]:
        done = starts(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert what in done.stderr


def test_packages_that_are_missing(numbers):
    _, path, _ = numbers
    for package, arguments in [("fastapi", ()), ("redis", ("--redis", "redis://127.0.0.1:1"))]:
        done = starts(path, "--port", "0", *arguments, blocked=(package,))
        assert done.returncode == 2
        last = done.stderr.splitlines()[-1]
        assert f"package {package}" in last and "pip install" in last


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", 70000), ("--ttl", 0), ("--ttl", "nan"), ("--max_sessions", 0), ("--threads", 0),
     ("--threads", 100000)],
)
def test_options_out_of_range(option, value):
    done = starts("model.onnx", option, value)
    assert done.returncode == 2 and f"error: {option}: expected" in done.stderr


def test_a_bound_of_sessions_in_redis_is_no_option():
    done = starts("model.onnx", "--redis", "redis://127.0.0.1:1", "--max_sessions", 3)
    assert done.returncode == 2 and "--max_sessions is for sessions in memory" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(tmp_path, numbers, number):
    """In the middle of its work, and with a connection that stays open."""
    _, path, _ = numbers
    service = Service(tmp_path, path)
    service.click("a", 1000)
    code, errors = service.stop(number)
    assert (code, errors) == (130 if number == signal.SIGINT else 0, "")


def test_it_imports_no_theano(numbers, tmp_path):
    """Standard error tells of every try, and so does it of one that is made on purpose."""
    _, _, service = numbers
    assert service.errors.read_text() == ""
    (tmp_path / "service.py").write_text("import pandas")
    command = running.command()
    command[-1] = str(tmp_path / "service.py")
    done = running.run(command)
    assert done.stderr.startswith("imported pandas") and done.returncode == 1
