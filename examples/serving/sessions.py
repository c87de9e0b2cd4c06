"""Sessions: what the service knows of each, and the stores that keep them.

A stored session is bytes: a header with checksums, the positions of the items it saw, its states.
"""

from __future__ import annotations

import re
import struct
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from exported import Exported
from problems import RequestError, StartError

# distinct items that are remembered of a session, the latest: they bound what is stored
MOST_SEEN = 1000
# magic, format, checksum of the model, checksum of the rest, number of items seen
_HEADER = struct.Struct("<8sB8sII")
_MAGIC, _FORMAT = b"GRU4RECH", 1


class Session:
    """A running session.

    Attributes
    ----------
    states : (U,) array
        States of all layers.
    seen : (n,) int32 array
        Positions of its distinct items, the latest last. Empty: it has no known click.
    stored : bytes or None
        The session as the store has it; None if it has none.
    """

    __slots__ = ("seen", "states", "stored")

    def __init__(self, states: np.ndarray, seen: np.ndarray, stored: bytes | None = None) -> None:
        self.states, self.seen, self.stored = states, seen, stored

    def take(self, item: int, states: np.ndarray) -> None:
        """Take the states after a click on an item, given by its position."""
        self.states = states
        others = self.seen[self.seen != item]
        self.seen = np.append(others[-(MOST_SEEN - 1) :], np.int32(item))


class Codec:
    """The bytes of the sessions of one model."""

    def __init__(self, model: Exported) -> None:
        self._digest, self._n_items = model.digest, len(model.item_ids)
        self._dtype, self._units = model.dtype.newbyteorder("<"), model.units

    def new(self, stored: bytes | None = None) -> Session:
        """Return a session without clicks."""
        return Session(np.zeros(self._units, self._dtype), np.zeros(0, np.int32), stored)

    def encoded(self, session: Session) -> bytes:
        """Return a session's bytes."""
        body = session.seen.astype("<i4").tobytes() + session.states.astype(self._dtype).tobytes()
        n_seen = len(session.seen)
        return _HEADER.pack(_MAGIC, _FORMAT, self._digest, zlib.crc32(body), n_seen) + body

    def decoded(self, data: bytes) -> Session:
        """Return the session that bytes stand for; a new one, if they belong to another model.

        Raises
        ------
        ValueError
            If they are no session's.
        """
        if len(data) < _HEADER.size:
            raise ValueError
        magic, version, digest, checksum, n_seen = _HEADER.unpack_from(data)
        body = memoryview(data)[_HEADER.size :]
        if (magic, version) != (_MAGIC, _FORMAT) or zlib.crc32(body) != checksum:
            raise ValueError
        if digest != self._digest:
            return self.new(data)
        if len(body) != 4 * n_seen + self._dtype.itemsize * self._units:
            raise ValueError
        seen = np.frombuffer(body, "<i4", n_seen)
        states = np.frombuffer(body, self._dtype, offset=4 * n_seen)
        # somebody may have made bytes with checksums that are right
        if not (np.isfinite(states).all() and ((seen >= 0) & (seen < self._n_items)).all()):
            raise ValueError
        return Session(states, seen, data)


# Both stores have the same methods. One thread alone calls them, but for `n_sessions` and `check`.


class MemoryStore:
    """Sessions in this process, until some time after their last click.

    Parameters
    ----------
    codec : Codec
    ttl : float
        Seconds.
    most : int
        Number of sessions; of more, the one whose last click is the longest ago goes.
    """

    def __init__(
        self, codec: Codec, ttl: float, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._codec, self._ttl, self._most, self._clock = codec, ttl, most, clock
        # in the order of their last clicks, which is that of their ends
        self._sessions: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def load(self, keys: Sequence[str]) -> list[Session | RequestError]:
        """Return sessions, new ones where there are none, or errors."""
        self._forget_old()
        found = [self._sessions.get(key) for key in keys]
        return [self._codec.new() if f is None else self._codec.decoded(f[1]) for f in found]

    def save(self, sessions: dict[str, Session]) -> dict[str, bool | RequestError]:
        """Store sessions; tell of each whether it is stored.

        False: it has changed in the store since it was loaded.
        """
        end = self._clock() + self._ttl
        for key, session in sessions.items():
            self._sessions[key] = end, self._codec.encoded(session)
            self._sessions.move_to_end(key)
        while len(self._sessions) > self._most:
            self._sessions.popitem(last=False)
        return dict.fromkeys(sessions, True)

    def delete(self, key: str) -> bool:
        """Forget a session; return whether there was one."""
        self._forget_old()
        return self._sessions.pop(key, None) is not None

    def n_sessions(self) -> int | None:
        """Return the number of sessions, None where it is not known."""
        return len(self._sessions)

    def check(self) -> None:
        """Raise a `RequestError` if sessions cannot be stored now."""

    def _forget_old(self) -> None:
        now = self._clock()
        while self._sessions and next(iter(self._sessions.values()))[0] <= now:
            self._sessions.popitem(last=False)


# stores a session if it is still what was loaded, so that services may share one Redis
_STORE_IF_SAME = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


class RedisStore:
    """Sessions in Redis, which several services share and which outlives them.

    Parameters
    ----------
    codec : Codec
    ttl : float
        Seconds.
    url : str
        For example redis://localhost:6379/0.
    """

    PREFIX = "gru4rec:session:"
    TIMEOUT = 2.0

    def __init__(self, codec: Codec, ttl: float, url: str) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise StartError("--redis needs the package redis: pip install redis") from None
        self._codec, self._milliseconds = codec, max(1, round(1000 * ttl))
        # answers that are damaged raise errors of any kind in the client
        self._problems: type[Exception] = Exception
        try:
            # no retries: a change whose answer was lost may have been made. The pool itself makes
            # a new connection where one was lost between two requests.
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=self.TIMEOUT,
                socket_connect_timeout=self.TIMEOUT,
                retry=Retry(NoBackoff(), 0),
            )
            self._redis.ping()
        except ValueError as err:
            raise StartError(f"--redis {_without_password(url)}: {err}") from None
        except self._problems as err:
            raise StartError(
                f"--redis {_without_password(url)}: Redis does not answer ({_one_line(err)}); "
                "start it, or leave --redis out to keep sessions in memory"
            ) from None

    def load(self, keys: Sequence[str]) -> list[Session | RequestError]:
        """As in `MemoryStore`."""
        names = [self.PREFIX + key for key in keys]
        try:
            values = self._redis.mget(names)
            if len(values) != len(names):
                raise ValueError(f"{len(values)} values of {len(names)}")
        except self._problems as err:
            return [_unavailable(err)] * len(keys)
        return [self._session(value) for value in values]

    def _session(self, value: bytes | None) -> Session | RequestError:
        if value is None:
            return self._codec.new()
        try:
            return self._codec.decoded(value)
        except (TypeError, ValueError):
            return RequestError(
                503, "what Redis has of this session is damaged: delete the session to begin anew"
            )

    def save(self, sessions: dict[str, Session]) -> dict[str, bool | RequestError]:
        """As in `MemoryStore`."""
        pipeline = self._redis.pipeline(transaction=False)
        for key, session in sessions.items():
            old, new = session.stored or b"", self._codec.encoded(session)
            pipeline.eval(_STORE_IF_SAME, 1, self.PREFIX + key, old, new, self._milliseconds)
        try:
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        except self._problems as err:
            return dict.fromkeys(sessions, _unavailable(err))
        return {
            key: answer == 1 if answer in (0, 1) else _unavailable(answer)
            for key, answer in zip(sessions, answers)
        }

    def delete(self, key: str) -> bool:
        """As in `MemoryStore`."""
        try:
            answer = self._redis.delete(self.PREFIX + key)
        except self._problems as err:
            raise _unavailable(err) from None
        if answer not in (0, 1):
            raise _unavailable(answer)
        return answer == 1

    def n_sessions(self) -> int | None:
        """As in `MemoryStore`: counting them would take Redis long."""
        return None

    def check(self) -> None:
        """As in `MemoryStore`."""
        try:
            answer = self._redis.ping()
        except self._problems as err:
            raise _unavailable(err) from None
        if answer is not True:
            raise _unavailable(answer)


def _without_password(url: str) -> str:
    return re.sub("//.*@", "//...@", url)


def _unavailable(err: object) -> RequestError:
    return RequestError(503, f"Redis cannot be used now ({_one_line(err)}); try again later")


def _one_line(err: object) -> str:
    return " ".join(str(err).split())[:200]
