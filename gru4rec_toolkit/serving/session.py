"""One running session: its clicks come one by one, and it can be stored and restored."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from gru4rec_toolkit import parameters
from gru4rec_toolkit.data.ids import Ids
from gru4rec_toolkit.errors import InputError, shown
from gru4rec_toolkit.serving.topk import Recommendations, Scorer

# magic, format, bytes of a float, checksums of the model and of the rest, number of items clicked
_HEADER = struct.Struct("<8sBBIII")
_MAGIC, _FORMAT = b"GRU4RECS", 1


class Session:
    """A running session of a trained model (`GRU4Rec.session`).

    Attributes
    ----------
    n_unknown : int
        Clicks on items that the model does not know, which change nothing.
    """

    def __init__(self, scorer: Scorer, state: bytes | None = None) -> None:
        self._scorer = scorer
        self._states = scorer.zero_states(1)
        self._seen: list[int] = []
        self.n_unknown = 0
        if state is not None:
            self._restore(state)

    def click(self, item: Any) -> bool:
        """Take the session's next event; return whether the model knows the item."""
        position = self._scorer.positions.of(item)
        if position < 0:
            self.n_unknown += 1
            return False
        items = np.array([position], dtype=np.int32)
        self._states = self._scorer.advance(items, self._states)
        self._seen.append(position)
        return True

    def top(
        self, k: int = 20, exclude_seen: bool = False, items: Ids | None = None
    ) -> Recommendations:
        """Return the k best next items (k,), best first, and their scores (k,).

        Parameters are those of `GRU4Rec.recommend`, and so are the results for the same events.
        """
        k, exclude_seen = parameters.check_arguments(k=k, exclude_seen=exclude_seen)
        candidates = self._scorer.candidates(items)
        k = min(k, len(self._scorer.item_ids if candidates is None else candidates))
        if not self._seen:
            return self._scorer.named(*self._scorer.most_popular(k, candidates))
        seen = np.unique(self._seen) if exclude_seen else np.zeros(0, dtype=np.int32)
        found, scores = self._scorer.best(self._states[-1], [seen], k, candidates)
        return self._scorer.named(found[0], scores[0])

    # ------------------------------------------------------------------------ storing

    @property
    def state(self) -> bytes:
        """Return all that the session is: `GRU4Rec.session` makes it again of that.

        It belongs to the weights that the model had at its first state, on any device. 4 bytes a
        unit (8 in float64) and a click.
        """
        size = self._states[0].itemsize
        arrays = [np.array(self._seen, dtype="<i4"), *(h.astype(f"<f{size}") for h in self._states)]
        body = b"".join(array.tobytes() for array in arrays)
        checksums = self._scorer.fingerprint, zlib.crc32(body)
        return _HEADER.pack(_MAGIC, _FORMAT, size, *checksums, len(self._seen)) + body

    def _restore(self, state: bytes) -> None:
        if not isinstance(state, (bytes, bytearray, memoryview)):
            raise InputError(f"state: expected the bytes of a session's state, got {shown(state)}")
        state = bytes(state)
        wrong = "state: expected the bytes of a session's state, as Session.state gives them"
        if len(state) < _HEADER.size:
            raise InputError(f"{wrong}, got {len(state)} bytes")
        magic, version, size, fingerprint, checksum, n_seen = _HEADER.unpack_from(state)
        body = state[_HEADER.size :]
        if magic != _MAGIC:
            raise InputError(f"{wrong}, got others")
        if version != _FORMAT:
            raise InputError(f"state: it has format {version}, this version reads {_FORMAT} only")
        n_units = sum(self._scorer.sizes)
        if fingerprint != self._scorer.fingerprint:
            raise InputError(
                "state: it belongs to another model, or to other weights; begin a new session"
            )
        damaged = InputError(f"{wrong}, got damaged ones; begin a new session")
        fits = size in (4, 8) and len(body) == 4 * n_seen + size * n_units
        if not fits or zlib.crc32(body) != checksum:
            raise damaged
        seen = np.frombuffer(body, dtype="<i4", count=n_seen)
        values = np.frombuffer(body, dtype=f"<f{size}", offset=4 * n_seen)
        # somebody may have made a state with a checksum that is right
        n_items = len(self._scorer.item_ids)
        if not (np.isfinite(values).all() and ((seen >= 0) & (seen < n_items)).all()):
            raise damaged
        self._seen = seen.tolist()
        bounds = np.cumsum(self._scorer.sizes)[:-1]
        self._states = [
            part.astype(h.dtype).reshape(1, -1)
            for part, h in zip(np.split(values, bounds), self._states)
        ]
