"""Load test of the service over real HTTP: latency, requests/s, and whether every answer is right.

    python examples/serving/load_test.py [model.onnx]

Each client runs sessions of several clicks on a connection of its own. With ``--rate`` clicks come
at random times, and latency counts from the moment at which a click was due; without, a client
sends the next click when it has the answer to the last. Afterwards the answers of sessions drawn at
random are compared with those of the exact model, run for each session alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
from problems import Parser, StartError, run

HERE = Path(__file__).resolve().parent
K = 20
CLICKS = 5  # a session
# how far a score may be from that of the session alone, as a share of the largest one
TOLERANCE = 1e-5
# seconds after which an answer counts as lost
LOST_AFTER = 20.0


class Sent(NamedTuple):
    """A click and its answer."""

    session: str
    item: object
    seconds: float
    answer: bytes | None  # None: lost, or not of status 200


class Row(NamedTuple):
    """What one number of clients was measured to do."""

    clients: int
    rate: float
    sent: list[Sent]
    seconds: float
    service_cpu: float
    client_cpu: float
    metrics: dict


# ---------------------------------------------------------------------------- clients


class Connection(asyncio.Protocol):
    """A connection that is kept, with one request at a time: asyncio's streams cost more."""

    HEADER_END, LENGTH = b"\r\n\r\n", re.compile(rb"content-length: (\d+)", re.IGNORECASE)

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future | None = None

    def connection_made(self, transport) -> None:
        self._transport = transport

    def connection_lost(self, err) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the service closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(self.HEADER_END)
        if end < 0:
            return
        length = int(self.LENGTH.search(self._received, 0, end + 2)[1])
        if len(self._received) >= end + 4 + length and not self._answer.done():
            status = int(self._received[9:12])
            self._answer.set_result((status, self._received[end + 4 :]))

    async def request(self, data: bytes) -> tuple[int, bytes]:
        """Send a request; return status and body."""
        self._received, self._answer = b"", asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await asyncio.wait_for(self._answer, LOST_AFTER)


async def client(
    number: int, host: str, port: int, items: list, rate: float, seconds: float
) -> list[Sent]:
    """Run sessions, one after the other, for some seconds; ``rate`` is this client's."""
    rng = np.random.default_rng(number)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, host, port)
    sent: list[Sent] = []
    begin = due = time.perf_counter()
    while True:
        now = time.perf_counter()
        if rate:
            due += rng.exponential(1 / rate)
            if due > now:
                await asyncio.sleep(due - now)
        else:
            due = now
        # a service that is too slow for the rate is not waited for without end
        if due - begin > seconds or now - begin > 2 * seconds:
            return sent
        session = f"{os.getpid()}-{begin:.0f}-{number}-{len(sent) // CLICKS}"
        item = items[rng.integers(len(items))]
        body = json.dumps({"item": item, "k": K}).encode()
        request = (
            f"POST /sessions/{session}/click HTTP/1.1\r\nHost: {host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            status, answer = await connection.request(request.encode() + body)
        except (OSError, asyncio.TimeoutError):
            sent.append(Sent(session, item, time.perf_counter() - due, None))
            return sent
        taken = time.perf_counter() - due
        sent.append(Sent(session, item, taken, answer if status == 200 else None))


async def run_clients(
    n: int, address: tuple[str, int], items: list, rate: float, seconds: float
) -> Row:
    """Run some clients at a time, after a second to warm up."""
    # each run has its own sessions, by its time of beginning
    await asyncio.gather(*(client(i, *address, items, rate / n, 1.0) for i in range(n)))
    before, cpu, began = metrics(address), time.process_time(), time.perf_counter()
    of_clients = await asyncio.gather(
        *(client(n + i, *address, items, rate / n, seconds) for i in range(n))
    )
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    after = metrics(address)
    sent = [one for each in of_clients for one in each]
    service_cpu = after["cpu_seconds"] - before["cpu_seconds"]
    for name in ("batches", "clicks"):
        after[name] -= before[name]
    return Row(n, rate, sent, took, service_cpu, cpu, after)


def metrics(address: tuple[str, int]) -> dict:
    """Return the service's own counts."""
    with urllib.request.urlopen("http://{}:{}/metrics".format(*address), timeout=10) as answer:
        return json.load(answer)


# ---------------------------------------------------------------------------- are they right?


def check(model, sent: list[Sent], most: int) -> tuple[int, int]:
    """Compare answers with the exact model, which runs each session alone.

    Returns
    -------
    checked, wrong : int
        Numbers of clicks.
    """
    sessions: dict[str, list[Sent]] = {}
    for one in sent:
        sessions.setdefault(one.session, []).append(one)
    keys = np.random.default_rng(0).permutation(sorted(sessions))
    checked = wrong = 0
    for key in keys:
        if checked >= most:
            break
        states = np.zeros((1, model.units), model.dtype)
        for one in sessions[key]:
            position = np.array([model.position(one.item)])
            best, exact, states = model.run(position, states, len(model.item_ids))
            if one.answer is None:  # whether its click was taken is not known
                break
            checked += 1
            wrong += not right(model, json.loads(one.answer), best[0], exact[0])
    return checked, wrong


def right(model, answer: dict, best: np.ndarray, exact: np.ndarray) -> bool:
    """Tell whether a list is the exact one, but for rounding."""
    n = min(K, len(best))
    off = TOLERANCE * max(1.0, float(np.abs(exact[:n]).max()))
    if len(answer["items"]) != n or len({*answer["items"]}) != n:
        return False
    scores = np.empty_like(exact)
    scores[best] = exact
    own = scores[[model.position(item) for item in answer["items"]]]
    # items of nearly equal scores may be the other way round
    return np.allclose(own, exact[:n], 0, off) and np.allclose(answer["scores"], own, 0, off)


# ---------------------------------------------------------------------------- the program


@contextlib.contextmanager
def service(model: str, arguments: list[str]):
    """Run the service as a process; yield its address."""
    command = [sys.executable, str(HERE / "service.py"), model, "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        ready = re.search(r"http://(.+):(\d+)$", process.stdout.readline().strip())
        if ready is None:
            raise StartError("the service did not start")
        yield ready[1], int(ready[2])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", help="default: made up, of --items and --units")
    parser.add_argument("--items", type=int, default=40_000, help="default: %(default)s")
    parser.add_argument("--units", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64], metavar="N")
    parser.add_argument(
        "--rate",
        type=float,
        nargs="+",
        default=[0.0, 1000.0],
        metavar="R",
        help="clicks/s of all clients together; 0: as fast as they are answered (default: both "
        "0 and 1000)",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of a row (default: 5)")
    parser.add_argument("--checked", type=int, default=1000, help="answers checked of a row")
    parser.add_argument("--threads", type=int, default=1, help="of the service (default: 1)")
    parser.add_argument("--redis", metavar="URL", help="the service's sessions are there")
    parser.add_argument(
        "--url",
        help="of a running service of the same model, for example on "
        "another machine: http://HOST:PORT",
    )
    args = parser.parse_args()
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    with tempfile.TemporaryDirectory() as directory:
        path = args.model or made_up(directory, args.items, args.units)
        if args.url:
            found = re.fullmatch(r"http://([^/:]+):(\d+)/?", args.url)
            if found is None:
                parser.error(f"--url: expected http://HOST:PORT, got {args.url}")
            started = contextlib.nullcontext((found[1], int(found[2])))
        else:
            options = ["--threads", str(args.threads)]
            options += ["--redis", args.redis] if args.redis else []
            started = service(path, options)
        with started as address:
            passed = measure(path, address, args)
    if not passed:
        sys.exit(1)


def made_up(directory: str, n_items: int, units: int) -> str:
    """Write a model of made-up weights; return its path."""
    from random_model import random_model

    path = Path(directory, "model.onnx")
    path.write_bytes(random_model(n_items, units))
    return str(path)


def measure(path: str, address: tuple[str, int], args: argparse.Namespace) -> bool:
    """Print the table; return whether all answers came and those checked were right."""
    from exported import Exported

    model = Exported(path)
    load = os.getloadavg()[0]
    print(
        f"{len(model.item_ids):,} items, {model.units} units; {os.cpu_count()} cores, on which the "
        f"clients run, too; load average at the start {load:.1f}\n"
    )
    print(
        "| clients | clicks/s | p50, ms | p90, ms | p99, ms | model p50, ms | model p90, ms | "
        "sessions a run | CPU of service, ms a click | of clients | lost | wrong of checked |"
    )
    print("| --- " * 12 + "|")
    passed = True
    for rate in args.rate:
        for n in args.clients:
            row = asyncio.run(run_clients(n, address, model.item_ids, rate, args.seconds))
            lost = sum(one.answer is None for one in row.sent)
            # every click counts once in the service, too
            lost += abs(row.metrics["clicks"] - len(row.sent))
            checked, wrong = check(model, row.sent, args.checked)
            passed &= lost == 0 and wrong == 0 and checked > 0
            print(formatted(row, lost, checked, wrong), flush=True)
    return passed


def formatted(row: Row, lost: int, checked: int, wrong: int) -> str:
    """Return a line of the table."""
    n = len(row.sent)
    p50, p90, p99 = np.percentile([1000 * one.seconds for one in row.sent], [50, 90, 99])
    of_model = row.metrics["run_ms"]
    clients = f"{row.clients}, {row.rate:.0f}/s" if row.rate else str(row.clients)
    return (
        f"| {clients} | {n / row.seconds:.0f} | {p50:.1f} | {p90:.1f} | {p99:.1f} | "
        f"{of_model['p50']:.2f} | {of_model['p90']:.2f} | "
        f"{n / max(1, row.metrics['batches']):.1f} | {1000 * row.service_cpu / n:.2f} | "
        f"{1000 * row.client_cpu / n:.2f} | {lost} | {wrong} of {checked} |"
    )


if __name__ == "__main__":
    run(main)
