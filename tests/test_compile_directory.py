"""The directory of compiled code: nobody else's code is run, and every failure is one sentence."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gru4rec_toolkit import compile_directory
from gru4rec_toolkit.errors import InputError
from gru4rec_toolkit.theano_setup import theano

OTHER = 12345  # a user that nobody is
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
OPEN = {"everybody": 0o777, "everybody, sticky": 0o1777}


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Return the cache of the user, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def blocked(monkeypatch, tmp_path):
    """A path below a regular file: nobody can make a directory there, not even root."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "home"


def fallback(temporary):
    return temporary / f"gru4rec-theano-{os.getuid()}"


# --- choice ---------------------------------------------------------------------------------------


def cpuinfo(monkeypatch, text):
    """Let /proc/cpuinfo hold this text, or be missing."""
    read_text = Path.read_text

    def fake(path, *arguments, **options):
        if str(path) != "/proc/cpuinfo":
            return read_text(path, *arguments, **options)
        if text is None:
            raise FileNotFoundError(str(path))
        return text

    monkeypatch.setattr(Path, "read_text", fake)


INTEL = "processor\t: 0\nmodel name\t: Xeon\ncpu MHz\t\t: {mhz}\nflags\t\t: sse avx {more}\n"


def test_every_kind_of_processor_has_its_compile_directory(monkeypatch, cache):
    texts = [INTEL.format(mhz=2000, more=flags) for flags in ("", "avx2", "avx2 avx512f")]
    texts += [INTEL.format(mhz=2000, more="").replace("Xeon", "EPYC")]
    texts += ["processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd0c\n", "", None]
    found = set()
    for text in texts[:-1]:
        cpuinfo(monkeypatch, text)
        found.add(compile_directory.choose())
    assert len(found) == len(texts) - 1
    # no file is like an empty one
    cpuinfo(monkeypatch, None)
    assert compile_directory.choose() in found
    assert {path.parent for path in found} == {cache / "gru4rec-theano"}


def test_the_same_processor_keeps_its_compile_directory(monkeypatch, cache):
    cpuinfo(monkeypatch, INTEL.format(mhz=2000, more="avx2 fma"))
    first = compile_directory.choose()
    # the clock changes all the time, and kernels differ in the order of the flags
    cpuinfo(monkeypatch, INTEL.format(mhz=3123.4, more="fma avx2"))
    assert compile_directory.choose() == first


def test_compile_directory_in_the_home(monkeypatch, tmp_path, temporary, caplog):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".cache").mkdir(parents=True, mode=0o755)
    base = compile_directory.choose()
    assert base.is_dir()
    assert base.parent == tmp_path / "home" / ".cache" / "gru4rec-theano"
    assert not caplog.records


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_without_a_writable_home(monkeypatch, blocked, temporary, caplog, variable):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(blocked))
    base = compile_directory.choose()
    assert base.is_dir() and base.parent == fallback(temporary)
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(base) in message and str(blocked) in message


def test_a_user_without_a_home(monkeypatch, temporary):
    # in a container, a user id that no file of users has, and HOME not set
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert fallback(temporary) in compile_directory.choose().parents


def test_nowhere_to_compile(monkeypatch, blocked):
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(tempfile, "tempdir", str(blocked))
    with pytest.raises(InputError, match="set XDG_CACHE_HOME") as caught:
        compile_directory.choose()
    assert str(blocked) in str(caught.value)


def test_no_temporary_directory(monkeypatch, blocked):
    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        compile_directory.choose()
    assert "TMPDIR" in str(compile_directory.failure(OSError(28, "full"), blocked))


# --- safety ---------------------------------------------------------------------------------------

LEVELS = ("shared", "shared/cache", "gru4rec-theano", "base", "compiledir_x", "compiledir_x/tmp1")


@pytest.fixture
def levels(monkeypatch, tmp_path, temporary):
    """Return every level of a cache below a directory that is to be shared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared" / "cache"))
    base = compile_directory.choose()
    (base / "compiledir_x" / "tmp1").mkdir(parents=True)
    found = [base.parents[2], base.parents[1], base.parent, base]
    found += [base / "compiledir_x", base / "compiledir_x" / "tmp1"]
    return dict(zip(LEVELS, found))


def refused(levels, culprit, temporary, caplog):
    """Check that the temporary directory is taken instead, and return why."""
    assert compile_directory.choose().parent == fallback(temporary)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"because {culprit} " in message and "set XDG_CACHE_HOME" in message
    assert ("remove it" in message) == ("gru4rec-theano" in str(culprit))
    return message


@needs_root
@pytest.mark.parametrize("level", LEVELS)
def test_a_directory_of_another_user(levels, temporary, caplog, level):
    os.chown(levels[level], OTHER, -1)
    assert f"uid {OTHER}" in refused(levels, levels[level], temporary, caplog)


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_a_directory_that_everybody_can_write(levels, temporary, caplog, level):
    levels[level].chmod(0o777)
    assert "mode 777" in refused(levels, levels[level], temporary, caplog)


def test_a_sticky_directory_protects_what_lies_in_it_only(levels, temporary, caplog):
    levels["shared"].chmod(0o1777)  # as /tmp
    assert compile_directory.choose() == levels["base"]
    levels["base"].chmod(0o1777)  # others could add modules
    assert "mode 1777" in refused(levels, levels["base"], temporary, caplog)


@needs_root
def test_a_link_of_another_user(levels, tmp_path, temporary, caplog):
    levels["shared"].chmod(0o1777)
    (tmp_path / "elsewhere").mkdir()
    link = levels["shared"] / "link"
    link.symlink_to(tmp_path / "elsewhere")
    os.environ["XDG_CACHE_HOME"] = str(link)
    # a link of the user's own, to a disk with more space: its target counts
    base = compile_directory.choose()
    assert base.parents[1] == tmp_path / "elsewhere"
    os.chown(link, OTHER, -1, follow_symlinks=False)
    refused(levels, link, temporary, caplog)


def test_a_link_into_a_directory_that_everybody_can_write(levels, tmp_path, temporary, caplog):
    levels["shared"].chmod(0o777)
    (tmp_path / "link").symlink_to("shared/../shared")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path / "link" / "cache")
    refused(levels, levels["shared"], temporary, caplog)


def test_a_circle_of_links(tmp_path, monkeypatch, temporary):
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "circle"))
    assert compile_directory.choose().parent == fallback(temporary)


@pytest.mark.parametrize("prepare", ["open", pytest.param("given away", marks=needs_root)])
def test_the_temporary_directory_is_checked_too(monkeypatch, blocked, temporary, prepare):
    """In a directory where everybody may write, somebody else can be there first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    directory = fallback(temporary)
    directory.mkdir()
    if prepare == "open":
        directory.chmod(0o777)
    else:
        os.chown(directory, OTHER, -1)
    with pytest.raises(InputError, match="by this user alone") as caught:
        compile_directory.choose()
    assert str(directory) in str(caught.value) and "XDG_CACHE_HOME" in str(caught.value)
    assert list(directory.iterdir()) == []  # nothing was created there


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_every_level_is_closed_to_others(cache, umask):
    before = os.umask(umask)
    try:
        base = compile_directory.choose()
    finally:
        os.umask(before)
    for level in (cache, base.parent, base):
        assert level.stat().st_mode & 0o777 == 0o700
    assert compile_directory.choose() == base


@pytest.mark.parametrize(
    ("listed", "primary", "safe"),
    [
        ([], ["me"], True),  # a group of its own for each user, as on Debian and Red Hat
        (["me", "root"], [], True),
        (["me", "colleague"], ["me"], False),
        ([], ["me", "colleague"], False),  # everybody is in the group "users", as on SUSE
        (None, [], False),  # a group that has no entry
    ],
)
def test_directories_of_the_umask_002(monkeypatch, levels, temporary, listed, primary, safe):
    me = "me" if os.geteuid() else "root"
    users = {os.geteuid(): me, 0: "root"}

    def user(uid):
        return SimpleNamespace(pw_name=users[uid])

    def group(gid):
        if listed is None:
            raise KeyError(gid)
        return SimpleNamespace(gr_mem=[users_name(n) for n in listed], gr_name="group")

    def users_name(name):
        return me if name == "me" else name

    for level in levels.values():
        level.chmod(0o775)
    gid = levels["base"].stat().st_gid
    everybody = [SimpleNamespace(pw_name=users_name(n), pw_gid=gid) for n in primary]
    monkeypatch.setattr(pwd, "getpwuid", user)
    monkeypatch.setattr(pwd, "getpwall", lambda: everybody)
    monkeypatch.setattr(grp, "getgrgid", group)
    assert (compile_directory.choose() == levels["base"]) == safe


def test_an_access_control_list_may_name_anybody(levels, temporary, caplog):
    entries = [(0x01, 7, -1), (0x02, 7, OTHER), (0x04, 5, -1), (0x10, 7, -1), (0x20, 5, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(levels["base"], "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("the file system has no access control lists")
    assert levels["base"].stat().st_mode & 0o777 == 0o775
    refused(levels, levels["base"], temporary, caplog)


def as_user(uid, shared):
    """Return the directory that a user chooses, or the complaint, in a process of that user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.environ["HOME"] = "/"  # as in containers that run under any user's number
            os.environ.pop("XDG_CACHE_HOME", None)
            tempfile.tempdir = shared
            answer = str(compile_directory.choose())
        except BaseException as err:
            answer = f"{type(err).__name__}: {err}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer


@needs_root
def test_users_without_a_home_share_the_temporary_directory():
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        os.chmod(shared, 0o1777)
        for uid in (OTHER, OTHER + 1):
            directory = Path(as_user(uid, shared))
            assert directory.parent == Path(shared) / f"gru4rec-theano-{uid}"
            for level in (directory, directory.parent):
                assert (level.stat().st_uid, level.stat().st_mode & 0o777) == (uid, 0o700)
        # somebody was there first
        os.chown(Path(shared) / f"gru4rec-theano-{OTHER}", OTHER + 1, -1)
        message = as_user(OTHER, shared)
        assert message.startswith("InputError") and f"uid {OTHER + 1}" in message


# --- what lies in a compile directory -------------------------------------------------------------


@pytest.fixture
def module(levels):
    """A compiled module and its keys, in a compile directory that others can enter."""
    folder = levels["compiledir_x/tmp1"]
    for level in (folder, folder.parent):
        level.chmod(0o755)
    for name in ("mod.so", "key.pkl"):
        (folder / name).write_bytes(b"")
        (folder / name).chmod(0o644)
    return folder


@pytest.mark.parametrize("name", ["", "mod.so", "key.pkl"])
def test_modules_that_everybody_can_write(module, temporary, caplog, name):
    (module / name).chmod(0o777)
    assert compile_directory.choose().parent == fallback(temporary)
    assert f"{module / name} can be written by everybody" in caplog.text.replace("/ ", " ")


@pytest.mark.parametrize("closed", ["compile directory", "module's directory"])
def test_files_that_nobody_else_can_reach(module, cache, closed):
    """A umask of 000 opens files, which are as safe as the directory that they are in."""
    (module / "mod.so").chmod(0o777)
    (module.parent if closed == "compile directory" else module).chmod(0o700)
    assert cache in compile_directory.choose().parents
    compile_directory.check_loaded(module / "mod.so")


@needs_root
@pytest.mark.parametrize("name", ["lazylinker_ext.so", "mod.cpp"])
def test_files_that_theano_loads_at_its_import(levels, temporary, caplog, name):
    folder = levels["compiledir_x"] / "lazylinker_ext"
    folder.mkdir()
    (folder / name).write_bytes(b"")
    os.chown(folder / name, OTHER, -1)
    assert compile_directory.choose().parent == fallback(temporary)
    assert f"{name} belongs to another user" in caplog.text


def load(module, name):
    """Load a module, or the keys, as Theano does it."""
    cache = theano.gof.cmodule.ModuleCache
    stub = SimpleNamespace(
        module_from_name={}, dirname=str(module.parent), loaded_key_pkl=set(), stats=[0, 0]
    )
    if name == "key.pkl":
        cache.refresh(stub)
    else:
        cache._get_module(stub, str(module / name))


@pytest.mark.parametrize("name", ["mod.so", "key.pkl"])
def test_what_is_loaded_is_looked_at(module, name):
    (module / name).chmod(0o666)
    with pytest.raises(InputError, match=f"cannot be loaded: .*{name} can be written by everybody"):
        load(module, name)
    assert (module / name).exists()


@needs_root
@pytest.mark.parametrize("name", ["mod.so", "key.pkl"])
def test_what_is_loaded_is_ours(module, name):
    os.chown(module / name, OTHER, -1)
    module.parent.chmod(0o700)
    with pytest.raises(InputError, match=f"cannot be loaded: .*{name} belongs.*uid {OTHER}"):
        load(module, name)


# --- use ------------------------------------------------------------------------------------------


def test_a_cleared_directory_is_restored(levels):
    directory = levels["compiledir_x"]
    compile_directory.restore(directory)
    levels["compiledir_x/tmp1"].rmdir()
    (directory / "__init__.py").unlink()
    for level in (directory, levels["base"], levels["gru4rec-theano"]):
        level.rmdir()
    compile_directory.restore(directory)
    assert (directory / "__init__.py").exists()
    assert levels["gru4rec-theano"].stat().st_mode & 0o777 == 0o700


@needs_root
def test_a_directory_that_another_user_has_put_in_place(levels):
    directory = levels["compiledir_x"]
    compile_directory.restore(directory)
    directory.rename(directory.with_name("before"))
    directory.mkdir()
    os.chown(directory, OTHER, -1)
    with pytest.raises(InputError, match=f"uid {OTHER}"):
        compile_directory.restore(directory)


def lock(levels, text, age=0.0):
    directory = levels["compiledir_x"] / "lock_dir"
    directory.mkdir(exist_ok=True)
    if text is not None:
        (directory / "lock").write_text(text)
        os.utime(directory / "lock", (time.time() - age,) * 2)
    os.utime(directory, (time.time() - age,) * 2)
    return directory


HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("text", "age"),
    [
        (f"{os.getpid()}_0123456789_{HOST}\n", 0),  # a container's process has the same number
        (f"1_0123456789_{HOST}\n", 1e9),  # its number is another process's by now
        ("", 60),  # out of space or killed before the owner was written
        (None, 60),
    ],
    ids=["same number", "number taken again", "empty", "no owner"],  # the same in all workers
)
def test_locks_of_processes_that_are_gone(levels, text, age):
    directory = lock(levels, text, age)
    compile_directory.remove_stale_locks(levels["base"])
    assert not directory.exists()


@pytest.mark.parametrize(
    "text",
    [f"{os.getppid()}_0123456789_{HOST}\n", f"{os.getpid()}_0123456789_elsewhere\n", ""],
    ids=["alive", "another machine", "empty"],
)
def test_locks_of_others_are_kept(levels, text):
    directory = lock(levels, text)
    compile_directory.remove_stale_locks(levels["base"])
    assert directory.exists()


def test_files_that_lack_their_end(tmp_path):
    data, path = Path(sys.executable).read_bytes(), tmp_path / "x.so"
    path.write_bytes(data)
    assert not compile_directory.is_cut_short(path)
    for size in (len(data) - 1, len(data) // 2, 64, 63, 0):
        path.write_bytes(data[:size])
        assert compile_directory.is_cut_short(path)
    path.write_bytes(bytes(len(data)))
    assert compile_directory.is_cut_short(path)
    path.write_bytes(data[:4] + b"\1" + data[5:64])  # 32 bits: not looked at
    assert not compile_directory.is_cut_short(path)
    assert not compile_directory.is_cut_short(tmp_path / "missing.so")


def test_modules_that_another_process_compiles_are_left_alone(levels):
    folder = levels["compiledir_x"] / "lazylinker_ext"
    folder.mkdir()
    (folder / "lazylinker_ext.so").write_bytes(b"")
    directory = lock(levels, f"{os.getppid()}_0123456789_{HOST}\n")
    compile_directory.remove_damaged(levels["base"])
    assert (folder / "lazylinker_ext.so").exists()
    shutil.rmtree(directory)
    compile_directory.remove_damaged(levels["base"])
    assert not folder.exists()
