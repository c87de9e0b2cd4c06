"""Files written whole or not at all, what may be replaced, and what killed writers leave."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import time

import pytest
from helpers.cli import ROOT, UNCOVERED, files_in, python
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec_toolkit import files, processes

# A writer that says the name of its partial file and goes on writing
WRITER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from gru4rec_toolkit import files as whole_files
with whole_files.replacing("target") as file:
    file.write(b"half")
    file.flush()
    print(*[name for name in os.listdir() if name.endswith(".part")], flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """Start a process that writes into the directory; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(ROOT)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    process.partial = process.stdout.readline().strip()
    assert (tmp_path / process.partial).read_bytes() == b"half"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write(path, data=b"new"):
    with files.replacing(path) as file:
        file.write(data)


# --- writing --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(parts=st.lists(st.binary(max_size=20_000), max_size=4))
def test_the_file_holds_what_was_written(tmp_path_factory, parts):
    path = tmp_path_factory.getbasetemp() / "any"
    with files.replacing(path) as file:
        for part in parts:
            file.write(part)
    assert path.read_bytes() == b"".join(parts)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError(), OSError(28)])
@pytest.mark.parametrize("exists", [True, False])
def test_an_exception_leaves_all_as_it_was(tmp_path, error, exists):
    if exists:
        (tmp_path / "file").write_bytes(b"old")
    before = files_in(tmp_path)
    with pytest.raises(type(error)), files.replacing(tmp_path / "file") as file:
        file.write(b"half of it")
        raise error
    assert files_in(tmp_path) == before


def test_of_several_files_none_is_replaced_before_all_are_written(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    before = files_in(tmp_path)
    paths = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(OSError), files.replacing_all(paths) as (a, b):
        a.write(b"new")
        a.flush()
        raise OSError(28, "No space left on device")
    assert files_in(tmp_path) == before
    with files.replacing_all(paths) as (a, b):
        a.write(b"1")
        b.write(b"2")
    assert files_in(tmp_path) == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("then", ["pass", "raise KeyboardInterrupt"])
def test_a_full_disk_is_told_once(tmp_path, then):
    # the buffer of a file that is thrown away would be written when it is closed
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from gru4rec_toolkit import files as whole_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with whole_files.replacing("file") as file:
        file.write(bytes(2000))
        {then}
except OSError as err:
    print(err.errno)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = python("-c", code, cwd=tmp_path, **UNCOVERED)
    told = errno.EFBIG if then == "pass" else "interrupted"
    assert (done.out, done.err) == (f"{told}\n", "")
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_the_permissions_of_a_replaced_file_stay(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    with files.replacing(path) as file:
        file.write(b"new")
        # nobody else may read the new content meanwhile either
        assert stat.S_IMODE(os.stat(file.name).st_mode) == mode
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path, exists, absolute):
    folder = tmp_path / "folder"
    folder.mkdir()
    if exists:
        (folder / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(folder / "file" if absolute else "folder/file")
    (tmp_path / "second").symlink_to("link")
    write(tmp_path / "second")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "second").is_symlink()
    assert files_in(folder) == {"file": b"new"}


def test_links_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for function in (files.check_writable, write):
        with pytest.raises(OSError) as caught:
            function(tmp_path / "a")
        assert caught.value.errno == errno.ELOOP
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "a").is_symlink() and (tmp_path / "b").is_symlink()


@pytest.mark.parametrize("function", [files.check_writable, write])
@pytest.mark.parametrize("path", ["", "missing/file", "n" * 300, "null\0byte"])
def test_paths_that_cannot_be_written(tmp_path, monkeypatch, function, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((OSError, ValueError)):
        function(path)
    assert os.listdir() == []


def test_text_with_surrogates(tmp_path):
    files.write_text(tmp_path / "file", "ö\udcff\n")
    assert (tmp_path / "file").read_bytes() == "ö\\udcff\n".encode()


# --- what may be replaced -------------------------------------------------------------------------


def never(path):
    return False


def test_other_files_are_an_obstacle_unless_forced(tmp_path):
    path = tmp_path / "file"
    assert files.obstacle(path, "a thing", never) is None
    path.write_bytes(b"")
    assert files.obstacle(path, "a thing", never) == "it exists and is not a thing"
    assert files.obstacle(path, "a thing", lambda path: True) is None
    assert files.obstacle(path, "a thing", never, force=True) is None
    assert files.obstacle(tmp_path, "a thing", never, force=True) == "it is a directory"


def names_of_one_file(folder):
    """Paths that lead to folder/file."""
    (folder / "sub").mkdir()
    os.link(folder / "file", folder / "hard")
    (folder / "link").symlink_to("file")
    (folder / "linked").symlink_to(folder)
    names = ["file", "./file", "sub/../file", "hard", "link", "linked/file", "linked/link"]
    return [folder / name for name in names] + [str(folder) + "//file"]


def test_inputs_are_an_obstacle_by_any_name_even_if_forced(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    names = names_of_one_file(tmp_path)
    for path in names:
        for needed in names:
            found = files.obstacle(path, "x", never, {"the data": needed}, force=True)
            assert found == "it is the data"
    (tmp_path / "other").write_bytes(b"data")
    inputs = {"the data": tmp_path / "other"}
    assert files.obstacle(tmp_path / "file", "x", never, inputs, force=True) is None


def test_inputs_that_do_not_exist_yet(tmp_path):
    (tmp_path / "link").symlink_to("file")
    assert files.is_same(tmp_path / "link", tmp_path / "file")
    assert not files.is_same(tmp_path / "link", tmp_path / "other")


# --- what killed writers leave --------------------------------------------------------------------


def test_the_next_write_removes_what_a_killed_writer_left(tmp_path, writer):
    writer.kill()
    writer.wait()
    assert writer.partial in os.listdir(tmp_path)
    write(tmp_path / "other")
    assert files_in(tmp_path) == {"other": b"new"}


def test_so_does_a_check(tmp_path, writer):
    writer.kill()
    writer.wait()
    files.check_writable(tmp_path / "other")
    assert files_in(tmp_path) == {}


def test_a_zombie_writes_no_more(tmp_path, writer):
    os.kill(writer.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while processes.start_time(writer.pid) != -1:  # it is not waited for
        assert time.monotonic() < until
        time.sleep(0.01)
    write(tmp_path / "other")
    assert files_in(tmp_path) == {"other": b"new"}


def test_a_living_writer_keeps_its_file(tmp_path, writer):
    write(tmp_path / "other")
    assert files_in(tmp_path) == {"other": b"new", writer.partial: b"half"}
    os.kill(writer.pid, signal.SIGSTOP)  # it lives
    write(tmp_path / "other")
    assert writer.partial in os.listdir(tmp_path)


def test_a_living_writer_that_proc_hides_keeps_its_file(tmp_path, writer, monkeypatch):
    own = os.getpid()
    start_time = processes.start_time
    monkeypatch.setattr(
        processes, "start_time", lambda pid: start_time(pid) if pid == own else None
    )
    write(tmp_path / "other")
    assert writer.partial in os.listdir(tmp_path)


def test_two_files_of_one_process(tmp_path):
    with files.replacing(tmp_path / "a") as a:
        write(tmp_path / "b")
        a.write(b"a")
    assert files_in(tmp_path) == {"a": b"a", "b": b"new"}


def left_over(tmp_path, writer):
    """Let the writer die; return the parts of its file's name."""
    writer.kill()
    writer.wait()
    pattern = r"\.gru4rec-(\w{16})-(\d+)-(\d+)-(\w{8})\.part"
    return re.fullmatch(pattern, writer.partial).groups()


def test_files_of_other_machines_and_of_others_stay(tmp_path, writer):
    machine, pid, start, rest = left_over(tmp_path, writer)
    other = machine[::-1] if machine[::-1] != machine else "f" * 16
    kept = {
        f".gru4rec-{other}-{pid}-{start}-{rest}.part",
        f".gru4rec-{machine}-{pid}-{start}-{rest}.part.npz",
        f".gru4rec-{machine}-{pid}-{rest}.part",
        f"x.gru4rec-{machine}-{pid}-{start}-{rest}.part",
        f".gru4rec-{machine}-0-{start}-{rest}.part",
        f".gru4rec-{machine}-{pid}-0-{rest}.part.d",
        ".gru4rec-abcdefgh",
    }
    for name in kept:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / f".gru4rec-{machine}-{pid}-{start}-00000000.part").mkdir()
    (tmp_path / f".gru4rec-{machine}-{pid}-{start}-00000001.part").symlink_to(".gru4rec-abcdefgh")
    write(tmp_path / "file")
    left = set(os.listdir(tmp_path))
    assert writer.partial not in left
    assert len(left) == len(kept) + 3 and kept < left


def test_another_process_with_the_same_id_keeps_nothing_alive(tmp_path, writer):
    # the id of a dead writer is given away again in the end; this process has it now
    machine, _, start, rest = left_over(tmp_path, writer)
    reused = f".gru4rec-{machine}-{os.getpid()}-{int(start) + 1}-{rest}.part"
    (tmp_path / writer.partial).rename(tmp_path / reused)
    write(tmp_path / "file")
    assert files_in(tmp_path) == {"file": b"new"}


def test_without_proc_nothing_is_removed(tmp_path, writer, monkeypatch):
    left_over(tmp_path, writer)
    monkeypatch.setattr(processes, "this_machine", lambda: "0" * 16)
    write(tmp_path / "file")
    assert writer.partial in os.listdir(tmp_path)


def test_the_helper_is_light():
    code = "import sys, gru4rec_toolkit.files; print({'numpy', 'pandas'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip()) == (0, "set()")


# --- locks ----------------------------------------------------------------------------------------


def test_a_lock_that_is_removed_as_another_waits_for_it(tmp_path, monkeypatch):
    """Who locks a file that its holder has removed meanwhile would hold nothing."""
    path, flock, n_calls = str(tmp_path / "lock"), fcntl.flock, []

    def removed_in_between(file, how):
        n_calls.append(how)
        if len(n_calls) == 1:
            os.remove(path)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", removed_in_between)
    with files.locked(path), pytest.raises(files.Locked), files.locked(path):
        pass
    assert len(n_calls) == 3 and files_in(tmp_path) == {}
