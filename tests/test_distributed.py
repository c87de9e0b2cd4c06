"""`examples/distributed/`: recommendations by Dask's workers are those of a single process."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.cli import (
    ROOT,
    TRAIN,
    Done,
    complaint,
    environment,
    files_in,
    own_signals,
    python,
    succeeds,
)

for package in ("pyarrow", "dask", "distributed"):
    pytest.importorskip(package, reason="examples/distributed/ needs Dask and pyarrow")

FOLDER = ROOT / "examples" / "distributed"
PROGRAM = FOLDER / "recommend.py"
README = (FOLDER / "README.md").read_text()
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
# parts of the large log
PARTS = ("--partitions", "12")


def readme(*start: str, **changes: str) -> list[str]:
    """Return the README's command that starts with these words, with some of its words changed."""
    (command,) = (c for c in COMMANDS if c[: len(start)] == list(start) and changes.keys() <= {*c})
    return [changes.get(word, word) for word in command]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models with integers and with text for ids, and events in the README's directory."""
    from gru4rec_toolkit import modelfile

    folder = tmp_path_factory.mktemp("distributed")
    for name, kind in {"model.gru4rec": "numbers", "texts.gru4rec": "text"}.items():
        (path, *_) = sorted((ROOT / "tests" / "models").glob(f"*python3.11*{kind}.gru4rec"))
        settings, arrays = modelfile.read(str(path))
        if kind == "text":
            settings.update(item_key="item", session_key="user")
            arrays["support"] = np.arange(1, len(arrays["item_ids"]) + 1)
        modelfile.write(str(folder / name), settings, arrays)
    train = pd.read_csv(TRAIN, sep="\t")

    # sessions all over three files, out of order, with events at the same time
    log = pd.concat([train.assign(SessionId=train.SessionId + 1000 * i) for i in range(30)])
    log = log.assign(Time=log.Time // 600).sample(frac=1, random_state=1)
    (folder / "events").mkdir()
    for i, rows in enumerate(np.array_split(np.arange(len(log)), 3)):
        # types of other widths, and dates in one of the files
        part = log.iloc[rows].astype({"SessionId": ["int32", "int64", "uint16"][i]})
        if i == 1:
            part = part.assign(Time=pd.to_datetime(part.Time, unit="s", utc=True))
        part.to_parquet(folder / "events" / f"{i}.parquet", row_group_size=2500, index=False)
    (folder / "events" / "notes.txt").write_text("not read")
    return folder


@pytest.fixture(scope="module")
def single(folder) -> pd.DataFrame:
    """The recommendations for the events by a single process."""
    from gru4rec import GRU4Rec

    log = pd.concat([pd.read_parquet(path) for path in sorted((folder / "events").glob("*.p*"))])
    is_date = log.Time.map(type) == pd.Timestamp
    log.loc[is_date, "Time"] = log.Time[is_date].map(pd.Timestamp.timestamp)
    return table(GRU4Rec.loadmodel(str(folder / "model.gru4rec")), log.astype({"Time": "int64"}))


def table(gru, log: pd.DataFrame, k: int = 20, **options) -> pd.DataFrame:
    items, scores = gru.recommend(log, k, **options)
    found = pd.DataFrame({"SessionId": np.repeat(np.unique(log[gru.session_key]), k)})
    found["Rank"] = np.tile(np.arange(1, k + 1), len(items))
    found["ItemId"], found["Score"] = items.ravel(), scores.ravel()
    return found[pd.notna(found.ItemId)].reset_index(drop=True)


def check_output(output: Path, expected: pd.DataFrame) -> list[str]:
    """Compare a directory of parts with one table; return the names of the parts."""
    names = sorted(path.name for path in output.iterdir())
    assert all(re.fullmatch(r"part-\d{5}\.parquet", name) for name in names)
    parts = [pd.read_parquet(output / name) for name in names]
    for part in parts:
        assert part.SessionId.is_monotonic_increasing
    found = pd.concat(parts)
    # stable: a session in two parts would have its ranks out of order
    found = found.sort_values("SessionId", kind="stable").reset_index(drop=True)
    assert found.columns.tolist() == ["SessionId", "Rank", "ItemId", "Score"]
    pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-6, check_dtype=False)
    return names


def nothing_left(folder: Path) -> bool:
    return not list(folder.glob(".*.partial"))


# --- many machines ------------------------------------------------------------------------------


@contextlib.contextmanager
def running(command: list[str], cwd: Path):
    """Start one of Dask's programs and end it with all of its processes."""
    assert command[0] == "dask"
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The README's scheduler, on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = readme("dask", "scheduler", **{"10.0.0.1": "127.0.0.1", "8786": port})
    address = f"tcp://127.0.0.1:{port}"
    # so that a test run that is killed leaves nothing for long
    options = ("--no-dashboard", "--idle-timeout", "300")
    with running([*command, *options], tmp_path_factory.mktemp("scheduler")):
        yield address


@pytest.fixture(scope="module")
def workers(scheduler, tmp_path_factory):
    """Two workers of that scheduler, started as the README says."""
    command = readme("dask", "worker", **{"tcp://10.0.0.1:8786": scheduler})
    with running([*command, "--death-timeout", "60"], tmp_path_factory.mktemp("workers")):
        yield scheduler


def test_a_scheduler_without_workers(folder, scheduler, capsys, monkeypatch):
    options = ("--scheduler", scheduler, "--timeout", "4")
    said = refusal(monkeypatch, capsys, folder, "model.gru4rec", "events", "out", *options)
    assert said.startswith(f"--scheduler {scheduler}: no worker was there for 4 seconds; start")
    assert nothing_left(folder) and not (folder / "out").exists()


@pytest.fixture(scope="module")
def by_scheduler(folder, workers) -> Done:
    """The README's command for several machines."""
    command = readme("python", str(PROGRAM.relative_to(ROOT)), **{"tcp://10.0.0.1:8786": workers})
    return succeeds(python(PROGRAM, *command[2:], *PARTS, cwd=folder))


def test_equal_to_a_single_process(folder, by_scheduler, single):
    names = check_output(folder / "recommended", single)
    assert len(names) == 12
    n_sessions = single.SessionId.nunique()
    assert re.match(rf"{n_sessions} sessions in 12 parts took \d+\.\d s$", by_scheduler.lines[0])
    assert by_scheduler.lines[1:] == ["Recommendations written to: recommended"]
    assert by_scheduler.err == ""
    assert nothing_left(folder)


def test_text_ids_other_columns_and_parts_without_sessions(folder, by_scheduler, workers):
    """Over the output of an earlier run."""
    from gru4rec import GRU4Rec

    gru = GRU4Rec.loadmodel(str(folder / "texts.gru4rec"))
    gru.session_key = "visit"
    log = pd.read_csv(TRAIN, sep="\t")
    log["ItemId"] = log.ItemId.map({int(i): i for i in gru.item_ids if i.isdigit()})  # "00914"
    ids = log.SessionId.unique()[:9]
    log = log[log.SessionId.isin(ids)].assign(SessionId="s" + log.SessionId.astype(str))
    unknown = {
        "SessionId": ["s0", "s0", ids[0]],
        "ItemId": ["x", gru.item_ids[5], "y"],
        "Time": [2, 1, 0],
    }
    log = pd.concat([log, pd.DataFrame(unknown).astype({"SessionId": str})])
    log = log.rename(columns={"SessionId": "visit", "ItemId": "item"})
    log.astype({"visit": "category"}).to_parquet(folder / "texts.parquet", index=False)
    output = folder / "texts"
    output.mkdir()
    earlier = (folder / "recommended" / "part-00003.parquet").read_bytes()
    (output / "part-00077.parquet").write_bytes(earlier)

    options = ("-k", "58", "--exclude_seen", "-sk", "visit", "--partitions", "40", "--force")
    options = ("texts.gru4rec", "texts.parquet", "texts", *options, "--scheduler", workers)
    done = succeeds(python(PROGRAM, *options, cwd=folder))
    n_events = len(log)
    assert done.err == (
        f"2 of {n_events} events are on items that the model does not know; they are skipped\n"
    )
    names = check_output(output, table(gru, log, 58, exclude_seen=True))
    assert 2 <= len(names) <= 11
    assert "part-00077.parquet" not in names
    assert nothing_left(folder)


def test_what_a_worker_finds_in_the_events(folder, workers, capsys, monkeypatch):
    log = pd.DataFrame({"SessionId": [1, 1, 2], "ItemId": [470, 470, 470], "Time": ["1", "2", "x"]})
    log.to_parquet(folder / "bad.parquet", row_group_size=2)
    options = ("bad.parquet", "out", "--scheduler", workers)
    said = refusal(monkeypatch, capsys, folder, "model.gru4rec", *options)
    assert said.startswith(f"{folder}/bad.parquet: column \"Time\" holds 'x' in row 2, expected")
    # while it recommends: this model's file does not tell what is popular
    log.assign(ItemId=-1, Time=1).to_parquet(folder / "bad.parquet")
    said = refusal(monkeypatch, capsys, folder, "model.gru4rec", *options)
    assert said.startswith("sessions: one has no event on an item that the model knows")
    assert nothing_left(folder) and not (folder / "out").exists()


# --- one machine --------------------------------------------------------------------------------


class Command:
    """The README's command for one machine, while it runs."""

    def __init__(self, folder: Path, output: str, *options: str, **env: str) -> None:
        command = readme(
            "python", str(PROGRAM.relative_to(ROOT)), recommended=output, **{"-k": "-k"}
        )
        self.folder, self.output = folder, output
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, *command[2:], *options],
            cwd=folder,
            env=environment(OPENBLAS_NUM_THREADS=None, OMP_NUM_THREADS=None, **env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=own_signals,
        )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def wait_for(self, pattern: str) -> Path:
        """Return a path in the directory of what is not ready, as soon as there is one."""
        pattern = f".{self.output}-*.partial/{pattern}"
        while self.process.poll() is None:
            found = sorted(self.folder.glob(pattern))
            if found:
                return found[0]
            time.sleep(0.02)
        raise AssertionError(f"it has ended: {self.finish()}")

    def kill_a_worker_at_work(self) -> int:
        """Kill a worker that has half written a part, which is lost with it."""
        while True:
            path = self.wait_for("parts/.gru4rec-*.part")
            worker = int(path.name.split("-")[2])
            os.kill(worker, signal.SIGSTOP)
            # 0.2 seconds: a call of the system that had begun has ended
            time.sleep(0.2)
            if path.exists():
                os.kill(worker, signal.SIGKILL)
                return worker
            os.kill(worker, signal.SIGCONT)

    def finish(self) -> Done:
        out, err = self.process.communicate(timeout=120)
        return Done(self.process.returncode, out, err)

    def check_that_all_have_ended(self) -> None:
        """Check that no process is left; Python's resource tracker sees the end a little later."""
        end = time.monotonic() + 10
        while self.processes() and time.monotonic() < end:
            time.sleep(0.05)
        assert self.processes() == set()

    def processes(self) -> set[int]:
        """Return the processes of its session, which are its children and theirs."""
        found = set()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.add(int(entry.name))
        return found


def test_a_worker_is_killed(folder, by_scheduler, single):
    with Command(folder, "survived", *PARTS) as command:
        worker = command.kill_a_worker_at_work()
        assert worker != command.process.pid
        # what a dead worker of another machine leaves, which only the command itself may remove
        stray = ".gru4rec-0123456789abcdef-1-1-00000000.part"
        (command.wait_for("parts") / stray).write_bytes(b"PAR1")
        done = succeeds(command.finish())
    assert re.fullmatch(r"the worker tcp://\S+ has gone; others do again what .*\n", done.err)
    check_output(folder / "survived", single)
    # whoever has done it, and however often
    assert files_in(folder / "survived") == files_in(folder / "recommended")
    assert nothing_left(folder)


def test_all_workers_die_again_and_again(folder):
    before = files_in(folder)
    never = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with Command(folder, "out", *PARTS, "--workers", "1", **never) as command:
        command.wait_for("events")
        environ = [Path(f"/proc/{pid}/environ").read_bytes() for pid in command.processes()]
        # the worker's alone: two on two cores must not get in each other's way
        assert any(b"\0OPENBLAS_NUM_THREADS=1\0" in variables for variables in environ)
        command.kill_a_worker_at_work()
        said = complaint(command.finish())
        command.check_that_all_have_ended()
    assert re.match(r"the workers died again and again, tcp://\S+ at last, at one and the", said)
    assert files_in(folder) == before


def test_ctrl_c(folder):
    """In a terminal it reaches all processes."""
    before = files_in(folder)
    with Command(folder, "out", "--workers", "1") as command:
        command.wait_for("parts/.gru4rec-*.part")
        assert len(command.processes()) >= 2
        os.killpg(command.process.pid, signal.SIGINT)
        done = command.finish()
        assert (done.code, done.out, done.err) == (130, "", "interrupted\n")
        command.check_that_all_have_ended()
    assert files_in(folder) == before


# --- mistakes -----------------------------------------------------------------------------------


def refusal(monkeypatch, capsys, folder, *options: str) -> str:
    """Run the command line in this process; return the one sentence that it says."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import recommend

    from gru4rec_toolkit.errors import run_cli

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["recommend.py", *options])
    with pytest.raises(SystemExit) as stop:
        run_cli(recommend.main)
    said = capsys.readouterr()
    return complaint(Done(stop.value.code, said.out, said.err))


@pytest.fixture
def place(folder, tmp_path) -> Path:
    """A directory with all that can be wrong."""
    (tmp_path / "model").write_bytes((folder / "model.gru4rec").read_bytes())
    log = pd.DataFrame({"SessionId": [1], "ItemId": [470], "Time": [1]})
    log.to_parquet(tmp_path / "good.parquet")
    log.iloc[:0].to_parquet(tmp_path / "empty.parquet")
    log.rename(columns={"Time": "When"}).to_parquet(tmp_path / "other.parquet")
    log.astype({"ItemId": float}).to_parquet(tmp_path / "floats.parquet")
    (tmp_path / "text.parquet").write_text("SessionId\tItemId\tTime\n")
    for name in ("none", "mixed", "strangers", "mine", "done"):
        (tmp_path / name).mkdir()
    log.to_parquet(tmp_path / "mixed" / "a.parquet")
    log.astype({"SessionId": str}).to_parquet(tmp_path / "mixed" / "b.parquet")
    log.to_parquet(tmp_path / "strangers" / "part-00000.parquet")
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    part = pd.DataFrame({"SessionId": [1], "Rank": [1], "ItemId": [1], "Score": [0.5]})
    part.to_parquet(tmp_path / "done" / "part-00000.parquet", index=False)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("no", "good.parquet", "out"), r"model file \S+/no: not found"),
        (("good.parquet", "good.parquet", "out"), r"model file \S+: not a GRU4Rec model"),
        (("model", "no.parquet", "out"), r"\S+/no.parquet: there is no such file"),
        (("model", "none", "out"), r"\S+/none: no file in this directory ends in .parquet"),
        (("model", "text.parquet", "out"), r"\S+/text.parquet: cannot be read as a Parquet file"),
        (("model", "empty.parquet", "out"), r"\S+/empty.parquet: there are no events in it"),
        (("model", "other.parquet", "out"), r'\S+/other.parquet: there is no column "Time"'),
        (("model", "floats.parquet", "out"), r'\S+: column "ItemId" is of the type double, exp'),
        (("model", "mixed", "out"), r'\S+/b.parquet: column "SessionId" holds text, but integers'),
        (("model", "good.parquet", "out", "-k", "0"), "-k: expected 1 item or more, got 0"),
        (("model", "good.parquet", "out", "--workers", "0"), "--workers: expected 1 process"),
        (("model", "good.parquet", "out", "--partitions", "0"), "--partitions: expected 1 to"),
        (("model", "good.parquet", "out", "--timeout", "nan"), "--timeout: expected a number"),
        (("model", "good.parquet", "no/out"), r"cannot write .*: No such file or directory; give"),
        (("model", "good.parquet", "model"), r"cannot write .*/model: it is no directory"),
        (("model", "good.parquet", "mine"), r"cannot write .*/mine: it holds 'thesis.txt'"),
        (("model", "good.parquet", "mine", "--force"), r"cannot write .*: it holds 'thesis.txt'"),
        (("model", "good.parquet", "strangers", "--force"), r".* it holds 'part-00000.parquet'"),
        (("model", "good.parquet", "done"), r".*/done: it holds recommendations already; give"),
        (
            ("model", "good.parquet", "out", "--timeout", "1", "--scheduler", "tcp://127.0.0.1:1"),
            r"--scheduler tcp://127.0.0.1:1: cannot be reached within 1 seconds \(",
        ),
        (
            ("model", "good.parquet", "out", "--scheduler", "nonsense://x"),
            r"--scheduler nonsense://x: cannot be reached",
        ),
    ],
)
def test_mistakes(place, capsys, monkeypatch, options, what):
    before = files_in(place)
    said = refusal(monkeypatch, capsys, place, *options)
    assert re.match(what, said), said
    assert files_in(place) == before


def test_without_dask(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = refusal(monkeypatch, capsys, place, "model", "good.parquet", "out")
    assert said.startswith(
        'this needs Dask; install it with `pip install "dask[distributed]" pyarrow`'
    )


def test_help_imports_nothing_heavy(tmp_path):
    done = succeeds(python("-X", "importtime", PROGRAM, "-h", cwd=tmp_path))
    assert "SESSIONS" in done.out
    assert not re.search(r"\| +(numpy|pandas|pyarrow|dask|theano)\b", done.err)


def test_the_readme_has_no_other_commands():
    requirements = ROOT / readme("pip")[-1]
    lines = requirements.read_text().splitlines()
    names = {re.split("[>=]", line)[0] for line in lines if not line.startswith("#")}
    assert names == {"dask", "distributed", "pyarrow"}
    assert [command[0] for command in COMMANDS] == ["pip", "python", "dask", "dask", "python"]
