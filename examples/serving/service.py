"""A trained GRU4Rec model as an HTTP service: clicks of a session in, the best next items out.

    python examples/serving/service.py model.onnx --port 8000

The model is a file of GRU4Rec.export_onnx; needs the packages of requirements.txt, no Theano.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path

from problems import Parser, StartError, run

HERE = Path(__file__).resolve().parent


def main() -> None:
    args = parsed()
    # bound before the model is loaded, which may take long
    listener = listening(args.host, args.port)
    try:
        import uvicorn
        from batcher import Batcher
        from exported import Exported
        from sessions import Codec, MemoryStore, RedisStore
        from web import application
    except ImportError as err:
        raise StartError(
            f"the package {err.name} is missing: pip install -r {HERE / 'requirements.txt'}"
        ) from None
    if args.approximate is None:
        model = Exported(args.model, args.threads)
    else:
        from approximation import Approximate

        model = Approximate(args.model, args.threads, args.approximate)
    codec = Codec(model)
    if args.redis is None:
        store = MemoryStore(codec, args.ttl, args.max_sessions)
    else:
        store = RedisStore(codec, args.ttl, args.redis)
    config = uvicorn.Config(
        application(model, Batcher(model, store)),
        log_level="error",
        access_log=False,
        # longer than load balancers keep theirs, who would send a request into a closed one
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    # a thread that waits for the interpreter gets it soon: the model's run, or the answers
    sys.setswitchinterval(0.0005)
    host, port = listener.getsockname()[:2]
    shown_host = f"[{host}]" if ":" in host else host
    print(f"{len(model.item_ids)} items on http://{shown_host}:{port}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def parsed() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="file of GRU4Rec.export_onnx")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (default: 8000)")
    parser.add_argument(
        "--ttl",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="how long a session lives after its last click (default: 3600)",
    )
    parser.add_argument(
        "--max_sessions",
        type=int,
        metavar="N",
        help="sessions in memory; of more, the one that rests longest goes (default: 100000)",
    )
    parser.add_argument("--redis", metavar="URL", help="keep sessions there instead of in memory")
    parser.add_argument(
        "--threads",
        type=int,
        default=max(1, cores() - 1),
        metavar="N",
        help="threads of a matrix product (default: cores - 1)",
    )
    parser.add_argument(
        "--approximate",
        nargs="?",
        const="",
        metavar="FILE",
        help="rank with an approximate index, for millions of items; it is loaded from the file, "
        "or built and saved there (needs usearch and onnx)",
    )
    args = parser.parse_args()
    if not 0 <= args.port <= 65535:
        parser.error(f"--port: expected 0 to 65535, got {args.port}")
    if not 0 < args.ttl <= 1e9:
        parser.error(f"--ttl: expected more than 0 seconds, and at most 1e9, got {args.ttl}")
    if args.redis is not None and args.max_sessions is not None:
        parser.error("--max_sessions is for sessions in memory; in Redis, set its maxmemory")
    args.max_sessions = 100_000 if args.max_sessions is None else args.max_sessions
    if args.max_sessions < 1:
        parser.error(f"--max_sessions: expected 1 or more, got {args.max_sessions}")
    most = max(1, os.cpu_count() or 1)
    if not 1 <= args.threads <= most:
        parser.error(f"--threads: expected 1 to {most}, the machine's cores, got {args.threads}")
    return args


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that is bound; raise a `StartError` if the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, UnicodeError) as err:
        reason = getattr(err, "strerror", None) or err
        raise StartError(f"cannot listen on {host}:{port}: {reason}") from None
    return listener


if __name__ == "__main__":
    # what uvicorn does after it has ended the requests, and what happens before it runs
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run(main)
