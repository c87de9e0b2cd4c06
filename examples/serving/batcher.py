"""One thread that runs the model: whatever waits when it is free goes into one run.

A lone request is run at once, so gathering costs nothing; the more requests come at a time, the
more of them share a matrix product. A session has one request in a run, so its clicks are applied
one after the other, in the order in which they came.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from exported import Exported
from problems import RequestError
from sessions import MemoryStore, RedisStore, Session

# requests that may wait; further ones are refused
MOST_WAITING = 4096
# runs whose times are kept for the metrics
N_TIMES = 1000


class Best(NamedTuple):
    """The best items of a session, best first."""

    positions: np.ndarray
    scores: np.ndarray


class Job:
    """A request that waits for its answer.

    Parameters
    ----------
    key : str
        The session.
    items : list of int
        Positions of the items clicked.
    k : int
    exclude_seen : bool
    clicks : bool
        Whether the session lives on for its time: looking at it alone does not keep it.
    delete : bool
        Forget the session instead; the answer is whether there was one.
    """

    __slots__ = (
        "answer", "clicks", "delete", "done", "exclude_seen", "items", "k", "key", "session",
    )  # fmt: skip

    def __init__(
        self,
        key: str,
        items: Sequence[int] = (),
        k: int = 20,
        exclude_seen: bool = False,
        clicks: bool = False,
        delete: bool = False,
    ) -> None:
        self.key, self.items, self.k = key, items, k
        self.exclude_seen, self.clicks, self.delete = exclude_seen, clicks, delete
        self.done = 0  # items that the session has taken
        self.session: Session | None = None
        self.answer: asyncio.Future

    def begin_again(self) -> None:
        self.done, self.session = 0, None

    @property
    def n_wanted(self) -> int:
        """The length of a list that has k items without those that are left out."""
        # the click itself may be a new item
        return self.k + (len(self.session.seen) + 1 if self.exclude_seen else 0)


class Batcher:
    """Gathers requests and answers them.

    Parameters
    ----------
    model : Exported
    store : MemoryStore or RedisStore

    Attributes
    ----------
    n_requests, n_runs, n_in_runs : int
        Requests answered, runs of the model, and sessions in these.
    """

    def __init__(self, model: Exported, store: MemoryStore | RedisStore) -> None:
        self.model, self.store = model, store
        self.n_requests = self.n_runs = self.n_in_runs = 0
        self._times: deque[float] = deque(maxlen=N_TIMES)
        self._waiting: deque[Job] = deque()
        self._wake = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    # ------------------------------------------------------------------------ the loop's side

    def start(self) -> None:
        """Start the thread; the running event loop gets the answers."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the requests that wait."""
        with self._wake:
            self._ends = True
            self._wake.notify()
        self._thread.join()

    async def answer(self, job: Job) -> Best | bool | None:
        """Return the best items of a session after a request; None if there is no list for it."""
        job.answer = asyncio.get_running_loop().create_future()
        with self._wake:
            if len(self._waiting) >= MOST_WAITING:
                raise RequestError(503, "too many requests are waiting; try again later")
            self._waiting.append(job)
            self._wake.notify()
        return await job.answer

    def times(self) -> np.ndarray:
        """Return the seconds (n,) of the latest runs of the model."""
        return np.array(list(self._times))

    def _deliver(self, answered: list[tuple[Job, object]]) -> None:
        self.n_requests += len(answered)
        for job, answer in answered:
            if job.answer.done():  # its client is gone
                continue
            if isinstance(answer, Exception):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)

    # ------------------------------------------------------------------------ the thread's side

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._ends:
                    self._wake.wait()
                if not self._waiting:
                    return
                jobs = self._next()
            try:
                answered = self._step(jobs)
            except Exception as err:
                answered = [(job, err) for job in jobs]
            if answered:
                self._loop.call_soon_threadsafe(self._deliver, answered)

    def _next(self) -> list[Job]:
        """Take the longest waiting requests, of each session one."""
        jobs: dict[str, Job] = {}
        later = []
        while self._waiting and len(jobs) < self.model.at_once:
            job = self._waiting.popleft()
            if job.key in jobs:
                later.append(job)
            else:
                jobs[job.key] = job
        self._waiting.extendleft(reversed(later))
        return list(jobs.values())

    def _step(self, jobs: list[Job]) -> list[tuple[Job, object]]:
        """Bring requests one item further; return those that are answered, with their answers."""
        answered: list[tuple[Job, object]] = []
        for job in jobs:
            if job.delete:
                try:
                    answered.append((job, self.store.delete(job.key)))
                except RequestError as err:
                    answered.append((job, err))
        jobs = [job for job in jobs if not job.delete]
        new = [job for job in jobs if job.session is None]
        for job, found in zip(new, self.store.load([job.key for job in new]) if new else ()):
            if isinstance(found, RequestError):
                answered.append((job, found))
            else:
                job.session = found
        jobs = [job for job in jobs if job.session is not None]
        answers = self._run(jobs)
        finished = [job for job in jobs if job.done == len(job.items)]
        # clicks on unknown items alone make no session, but let one live on
        changed = {j.key: j.session for j in finished if j.clicks and len(j.session.seen)}
        stored = self.store.save(changed) if changed else {}
        again = []
        for job in jobs:
            outcome = stored.get(job.key, True)
            if job.done < len(job.items):
                again.append(job)
            elif isinstance(outcome, RequestError):
                answered.append((job, outcome))
            elif outcome:
                answered.append((job, answers[job.key]))
            else:  # another service was faster
                job.begin_again()
                again.append(job)
        with self._wake:
            self._waiting.extendleft(reversed(again))
        return answered

    def _run(self, jobs: list[Job]) -> dict[str, Best | None]:
        """Apply the next item of each request, and return the best items after it."""
        answers: dict[str, Best | None] = {}
        ready = []
        for job in jobs:
            if job.done < len(job.items) or len(job.session.seen):
                ready.append(job)
            else:
                answers[job.key] = self._most_popular(job.k)
        if not ready:
            return answers
        began = time.perf_counter()
        items = [job.items[job.done] if job.done < len(job.items) else -1 for job in ready]
        states = np.stack([job.session.states for job in ready])
        k = max(job.n_wanted for job in ready)
        best, scores, states = self.model.run(np.array(items), states, k)
        self._times.append(time.perf_counter() - began)
        self.n_runs += 1
        self.n_in_runs += len(ready)
        for row, (job, item) in enumerate(zip(ready, items)):
            if item >= 0:
                job.session.take(item, states[row])
                job.done += 1
            if job.done == len(job.items):
                answers[job.key] = _list(job, best[row], scores[row])
        return answers

    def _most_popular(self, k: int) -> Best | None:
        if self.model.popular is None:
            return None
        positions, shares = self.model.popular
        return Best(positions[:k], shares[:k])


def _list(job: Job, best: np.ndarray, scores: np.ndarray) -> Best:
    if job.exclude_seen:
        kept = ~np.isin(best, job.session.seen)
        best, scores = best[kept], scores[kept]
    if len(best) and best[-1] < 0:  # an approximate index may find fewer
        best, scores = best[best >= 0], scores[best >= 0]
    return Best(best[: job.k], scores[: job.k])
