"""Sessions of the service in Redis: they outlive it, several share them, and Redis may fail."""

from __future__ import annotations

import socketserver
import struct
import threading
import zlib
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from helpers import redis, service
from helpers.served_models import N_ITEMS, exported
from helpers.service import Service, in_threads, until

service.needed()
redis.needed()

PREFIX = "gru4rec:session:"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = redis.RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of the same shapes, and the files that they are exported to."""
    folder = tmp_path_factory.mktemp("models")
    return exported(folder, "texts"), exported(folder, "texts", seed=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, models, server):
    """Two services of one model that share a Redis."""
    (_, path), _ = models
    with ExitStack() as stack:
        folders = [tmp_path_factory.mktemp("service") for _ in range(2)]
        yield [
            stack.enter_context(Service(folder, path, "--redis", server.url, "--ttl", "1000"))
            for folder in folders
        ]


def check(answer: dict, found) -> None:
    assert answer["items"] == found.items[0].tolist()
    np.testing.assert_allclose(
        answer["scores"], found.scores[0].astype(float), rtol=1e-5, atol=1e-5
    )


def test_a_restart_keeps_sessions(tmp_path, models, server):
    """Of the same model; with another one they begin anew."""
    (gru, path), (other, path_of_other) = models
    clicks = gru.item_ids[[7, 100, 299]].tolist()
    with Service(tmp_path, path, "--redis", server.url) as one:
        one.click("kept", clicks)
    with Service(tmp_path, path, "--redis", server.url) as one:
        check(one.top("kept"), gru.recommend([clicks]))
        check(
            one.click("kept", clicks[0], exclude_seen=True),
            gru.recommend([[*clicks, clicks[0]]], 20, True),
        )
    with Service(tmp_path, path_of_other, "--redis", server.url) as one:
        check(one.top("kept"), other.recommend([[]]))
        check(one.click("kept", clicks[1]), other.recommend([[clicks[1]]]))
        check(one.top("kept"), other.recommend([[clicks[1]]]))


def test_two_services_share_sessions(pair, models):
    """Whichever of them gets a click; they lose none that come at the same time."""
    (gru, _), _ = models
    clicks = gru.item_ids[[5, 6, 200, 17]].tolist()
    for number, item in enumerate(clicks):
        pair[number % 2].click("moving", item)
    for one in pair:
        check(one.top("moving"), gru.recommend([clicks]))
    items = gru.item_ids[np.random.default_rng(0).permutation(N_ITEMS)[:120].reshape(8, 15)]

    def work(number: int) -> None:
        for item in items[number].tolist():
            pair[number % 2].click("both", item)

    in_threads(work, 8)
    left = pair[0].top("both", k=1000, exclude_seen=True)["items"]
    assert sorted(left) == sorted({*gru.item_ids} - {*items.ravel()})


def test_time_to_live(pair, server, models):
    (gru, _), _ = models
    item = gru.item_ids[0]
    with server.client() as client:
        key = f"{PREFIX}ends"
        pair[0].click("ends", item)
        assert 0 < client.pttl(key) <= 1_000_000
        for request, renews in [
            (lambda: pair[0].top("ends"), False),
            (lambda: pair[0].click("ends", "nothing"), True),
        ]:
            client.pexpire(key, 500_000)
            request()
            assert (client.pttl(key) > 500_000) == renews
        assert pair[1].answer("DELETE", "/sessions/ends") == {"deleted": True}
        assert not client.exists(key)
        pair[0].click("never", "nothing")  # no known click makes no session
        assert not client.exists(f"{PREFIX}never")


def test_a_session_ends(tmp_path, models, server):
    (gru, path), _ = models
    with Service(tmp_path, path, "--redis", server.url, "--ttl", "0.3") as one:
        popular = one.top("nobody")
        assert one.click("short", gru.item_ids[0])["items"] != popular["items"]
        until(lambda: one.top("short") == popular)


def damaged(state: bytes, how: str) -> bytes:
    body = bytearray(state[25:])
    n_seen = struct.unpack_from("<I", state, 21)[0]
    if how == "position":
        struct.pack_into("<i", body, 0, N_ITEMS)
    elif how == "negative":
        struct.pack_into("<i", body, 0, -1)
    elif how == "NaN":
        struct.pack_into("<f", body, 4 * n_seen, float("nan"))
    elif how == "count":
        n_seen += 1
    elif how == "units":
        body += bytes(4)
    else:
        return {
            "empty": b"",
            "cut": state[:-1],
            "longer": state + b"x",
            "byte": state[:-3] + bytes([state[-3] ^ 1]) + state[-2:],
            "magic": b"x" + state[1:],
            "version": state[:8] + b"\x09" + state[9:],
            "text": b"somebody else's",
        }[how]
    # somebody made it, with a checksum that is right
    return state[:17] + struct.pack("<II", zlib.crc32(body), n_seen) + bytes(body)


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "cut",
        "longer",
        "byte",
        "magic",
        "version",
        "text",
        "position",
        "negative",
        "NaN",
        "count",
        "units",
        "type",
    ],
)
def test_a_damaged_session(pair, server, models, how):
    """Only its own requests fail, until it is deleted."""
    (gru, _), _ = models
    item = gru.item_ids[9]
    pair[0].click("broken", item)
    with server.client() as client:
        key = f"{PREFIX}broken"
        if how == "type":
            client.delete(key)
            client.rpush(key, "a list")
        else:
            client.set(key, damaged(client.get(key), how))
        kept = client.dump(key)
        found = {}

        def work(number: int) -> None:
            session = "broken" if number % 2 else f"whole-{number}"
            path = f"/sessions/{session}/click"
            found[number] = pair[0].request("POST", path, {"item": item})

        in_threads(work, 8)
        for number, (status, answer) in found.items():
            assert status == (503 if number % 2 else 200)
            if number % 2:
                assert len(answer["error"].splitlines()) == 1
        assert client.dump(key) == kept
    if how != "type":
        assert "damaged: delete the session" in found[1][1]["error"]
    pair[0].answer("DELETE", "/sessions/broken")
    check(pair[0].click("broken", item), gru.recommend([[item]]))


def test_redis_goes_and_comes_back(tmp_path, models):
    (gru, path), _ = models
    clicks = gru.item_ids[[11, 12]].tolist()
    server = redis.RedisServer(tmp_path)
    try:
        with Service(tmp_path, path, "--redis", server.url) as one:
            one.click("lasting", clicks[0])
            server.stop()
            for request in (
                ("POST", "/sessions/lasting/click", {"item": clicks[1]}),
                ("GET", "/sessions/lasting/top"),
                ("DELETE", "/sessions/lasting"),
                ("GET", "/health"),
            ):
                status, answer = one.request(*request)
                assert status == 503 and answer["error"].startswith("Redis cannot be used now")
            assert one.answer("GET", "/metrics")["sessions"] is None
            server.start()
            assert one.answer("GET", "/health")["status"] == "ok"
            check(one.click("lasting", clicks[1]), gru.recommend([clicks]))
            # a restart between two requests: the connection is lost, but no click
            server.stop()
            server.start()
            check(one.click("lasting", clicks[0]), gru.recommend([[*clicks, clicks[0]]]))
    finally:
        server.stop()


@pytest.mark.parametrize("reply", [b"nonsense\r\n", b"+OK\r\n", b":5\r\n", b"*2\r\n:7\r\n:1\r\n"])
def test_answers_that_are_not_those_of_redis(tmp_path, monkeypatch, models, reply):
    """Another program has taken its place."""
    monkeypatch.syspath_prepend(str(service.SERVING))
    from exported import Exported
    from problems import RequestError
    from sessions import Codec, RedisStore

    (_, path), _ = models
    codec = Codec(Exported(str(path)))
    server = redis.RedisServer(tmp_path)
    try:
        store = RedisStore(codec, 10, server.url)
    finally:
        server.stop()
    with liar(server.port, reply):
        for found in store.load(["a"]):
            assert isinstance(found, RequestError) and found.status == 503
        for found in store.save({"a": codec.new()}).values():
            assert isinstance(found, RequestError) and found.status == 503
        for change in (lambda: store.delete("a"), store.check):
            with pytest.raises(RequestError, match="Redis cannot be used now"):
                change()


@contextmanager
def liar(port: int, reply: bytes):
    """Answer everything with the same bytes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(10_000):
                self.request.sendall(reply)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def test_passwords_are_not_repeated(models, server):
    """In what the service says, which ends up in logs."""
    (_, path), _ = models
    url = f"redis://user:secret@127.0.0.1:{server.port}/0"
    done = service.run(service.command(path, "--port", "0", "--redis", url))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "secret" not in done.stderr
