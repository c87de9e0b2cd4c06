"""What the programs say on standard error: on a terminal of 80 columns, in pipes and in files."""

from __future__ import annotations

import os
import pty
import re

import pytest
from helpers.cli import ROOT, TEST, TRAIN, complaint, on_terminal, python, run_py, succeeds
from helpers.searches import Folder

from gru4rec_toolkit import messages

SMALL = "layers=16,n_epochs=2,n_sample=64"
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
RED, YELLOW, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"
# an error of some 130 characters, which takes no time
MISTAKE = (ROOT / "run.py", TRAIN, "-ps", "layers=abc")
# a program that says something in the middle of a progress bar
INTERRUPTING = f"""
import logging, sys
sys.path.insert(0, {str(ROOT)!r})
from gru4rec_toolkit import messages, progress

messages.set_up()
with progress.progress_bar(4, "Epoch 1") as bar:
    bar.update(2)
    logging.getLogger("gru4rec").warning("%s", " ".join(["word"] * 30))
    bar.update(2)
"""


def rows(text: str) -> list[str]:
    """Return what stood in the rows of a terminal, one after the other."""
    return re.split(r"[\r\n]", ESCAPE.sub("", text))


def too_long(text: str) -> list[str]:
    """Return the rows that do not fit 80 columns, but for paths and the like in one piece."""
    return [row for row in rows(text) if len(row) > 80 and " " in row.strip()]


def without_times(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+\.\d+s|\[.*/s\]", "", line) for line in lines]


@pytest.fixture(scope="module")
def ties(tmp_path_factory):
    """A log and a test set on which a baseline warns of ties, in a second."""
    folder = tmp_path_factory.mktemp("ties")
    head = "SessionId\tItemId\tTime\n"
    train = "".join(f"{i // 2}\t{i}\t{i}\n" for i in range(8))
    (folder / "train.tsv").write_text(head + train)
    (folder / "test.tsv").write_text(f"{head}1\t1\t1\n1\t2\t2\n")
    return folder


OF_TIES = (ROOT / "run.py", "train.tsv", "--baseline", "markov", "-t", "test.tsv", "-m", 3)


TRAINING = (TRAIN, "-ps", SMALL, "-t", TEST, "-m", 5, "-ee", "-d", "cpu")


@pytest.fixture(scope="module")
def in_a_pipe(tmp_path_factory):
    return succeeds(run_py(*TRAINING, cwd=tmp_path_factory.mktemp("pipe")))


def test_a_training_on_a_terminal(in_a_pipe, tmp_path):
    """Its messages are wrapped at words, its bars fit, and what scripts read is as ever."""
    done = succeeds(on_terminal(ROOT / "run.py", *TRAINING, cwd=tmp_path))
    assert too_long(done.err) == []
    said = " ".join(" ".join(rows(done.err)).split())
    assert "device: cpu (asked for); BLAS: " in said
    assert re.search(r"seed 42 on cpu with \d+ threads: all three and the same data give", said)
    assert re.search(r"Epoch 1: 100%.*mb/s\]", done.err)
    assert not re.search(r"[\x1b\r]", done.out)
    assert without_times(done.lines) == without_times(in_a_pipe.lines)
    (line,) = (line for line in in_a_pipe.err.splitlines() if line.startswith("device: "))
    assert len(line) > 80  # else nothing has been wrapped


def test_a_terminal_that_does_not_know_its_size(tmp_path):
    """As plain `script` and some containers have one: bars of 80 columns, and no empty lines."""
    command = (ROOT / "run.py", *TRAINING[:3])
    done = succeeds(on_terminal(*command, "-d", "cpu", cwd=tmp_path, columns=0, whole=True))
    (last,) = re.findall(r"\r(Epoch 1: 100%.*mb/s\])\n", done.err)
    assert 70 <= len(last) <= 80
    assert re.search(r"mb/s\]\nEpoch1 --> ", done.err)


def test_findings_on_a_terminal(tmp_path):
    """They are results, on standard output; in a pipe each of them is one line."""
    command = (ROOT / "run.py", TRAIN, "--check", "-t", TEST)
    piped = succeeds(python(*command, cwd=tmp_path)).out
    assert too_long(piped)
    shown = succeeds(on_terminal(*command, cwd=tmp_path, whole=True)).err
    assert not too_long(shown) and "note: " in shown
    assert " ".join(shown.split()) == " ".join(piped.split())


@pytest.mark.parametrize("columns", [80, 40])
def test_an_error_on_a_terminal(tmp_path, columns):
    done = on_terminal(*MISTAKE, cwd=tmp_path, columns=columns)
    assert done.code == 2 and done.err.startswith(f"{RED}error:{PLAIN} parameter layers: ")
    first, *others, end = done.err.split("\n")
    assert others and end == ""
    assert all(line.startswith("  ") for line in others)
    assert max(map(len, rows(done.err))) <= columns
    in_a_pipe = python(*MISTAKE, cwd=tmp_path)
    assert " ".join(ESCAPE.sub("", done.err).split()) == in_a_pipe.err.strip()


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_without_colours(tmp_path, variables):
    done = on_terminal(*MISTAKE, cwd=tmp_path, **variables)
    assert done.err.startswith("error: parameter layers: ") and "\x1b" not in done.err


def test_neither_colours_nor_line_breaks_in_pipes_and_files(tmp_path, ties):
    done = python(*MISTAKE, cwd=tmp_path, TERM="xterm", NO_COLOR=None)
    assert done.err == f"error: {complaint(done)}\n" and "\x1b" not in done.err
    assert len(done.err) > 80
    command = "import os, sys; os.dup2(os.open('said', os.O_CREAT | os.O_WRONLY), 2); "
    command += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    python("-c", command, *MISTAKE, cwd=tmp_path, TERM="xterm", NO_COLOR=None)
    assert (tmp_path / "said").read_text() == done.err
    (line,) = succeeds(python(*OF_TIES, cwd=ties, TERM="xterm")).err.splitlines()
    assert line.startswith("warning: 100.0% of the targets are among the first 3 only because")


def test_a_warning_on_a_terminal(ties):
    done = succeeds(on_terminal(*OF_TIES, cwd=ties))
    warning = done.err.partition(YELLOW)[2]
    assert warning.startswith(f"warning:{PLAIN} 100.0% of the targets are among the first 3 only")
    assert warning.count("\n  ") == 2 and too_long(done.err) == []
    assert RED not in done.err


def test_a_message_takes_the_place_of_a_bar(tmp_path):
    """Nothing of the bar is left beside it, and the bar goes on below."""
    done = succeeds(on_terminal("-c", INTERRUPTING, cwd=tmp_path))
    before, kind, rest = done.err.partition(f"{YELLOW}warning:{PLAIN}")
    assert kind and too_long(done.err) == []
    *_, bar, cleared, begun = before.split("\r")
    assert "Epoch 1" in bar and cleared.strip() == "" and len(cleared) >= 79 and begun == ""
    assert re.search(r"word\n\rEpoch 1: .*100%", rest, re.DOTALL)
    done = succeeds(python("-c", INTERRUPTING, cwd=tmp_path))
    assert done.err == f"warning: {' '.join(['word'] * 30)}\n"


# --- --quiet and --verbose ------------------------------------------------------------------------


def test_quiet(in_a_pipe, tmp_path):
    """On a terminal there are no bars, either."""
    done = succeeds(on_terminal(ROOT / "run.py", *TRAINING, "-q", cwd=tmp_path))
    assert done.err == "" and "compiling the training step" in in_a_pipe.err
    assert "Measuring Recall@5" in in_a_pipe.err  # the announcement of -ee
    assert without_times(done.lines) == without_times(in_a_pipe.lines)


def test_quiet_says_errors_and_warnings(tmp_path, ties):
    assert complaint(python(*MISTAKE, "-q", cwd=tmp_path)).startswith("parameter layers: ")
    (line,) = succeeds(python(*OF_TIES, "-q", cwd=ties)).err.splitlines()
    assert line.startswith("warning: 100.0% of the targets")


def test_verbose(in_a_pipe, tmp_path):
    done = succeeds(run_py(*TRAINING, "--checkpoint", "state", "--verbose", cwd=tmp_path))
    loud = [line for line in in_a_pipe.err.splitlines() if not line.startswith("Measuring")]
    lines = [line for line in done.err.splitlines() if not line.startswith("Measuring")]
    assert all(TIME.match(line) for line in lines)
    said = [TIME.sub("", line, count=1) for line in lines]
    in_detail = [line for line in said if line not in loud]
    assert [line for line in loud if line not in said] == []
    for pattern in (
        rf"{TRAIN}: \d+ events read and checked in \d+\.\d\d s",
        r"the training step was compiled in \d+\.\d\d s",
        r"checkpoint written to \S+/state/checkpoint.gru4rec",
    ):
        assert any(re.fullmatch(pattern, line) for line in in_detail), pattern
    assert without_times(done.lines) == without_times(in_a_pipe.lines)


@pytest.mark.parametrize("program", ["run.py", "paropt.py"])
def test_quiet_and_verbose_exclude_each_other(tmp_path, program):
    args = (TRAIN, "-ps", SMALL) if program == "run.py" else (TRAIN, TEST, "-opf", "space.json")
    said = complaint(python(ROOT / program, *args, "-q", "-v", cwd=tmp_path))
    assert said == "-v/--verbose and -q/--quiet exclude each other; leave one out"


SAYING = """
import logging
logging.getLogger("gru4rec").info("told to all")
logging.getLogger("gru4rec").debug("told in detail")
"""


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    """What a search of one trial says, and its log, by the option."""
    found = {}
    for option in ("", "-q", "-v"):
        folder = Folder(tmp_path_factory.mktemp("search") / "folder", SAYING)
        done = succeeds(folder.search(*option.split(), n_trials=1, fixed="n_epochs=1,loss=top1"))
        found[option] = done, (folder.path / "results/logs/trial_0000.log").read_text()
    return found


def test_a_quiet_search(searches):
    loud, _ = searches[""]
    note, study, trial = loud.err.splitlines()
    assert note.startswith("note: a final activation that saturates")
    assert TIME.match(study) and " A new study created in " in study
    assert TIME.match(trial) and " Trial 0 finished with value: {'recall@20': 0." in trial
    done, log = searches["-q"]
    assert done.err == "" and len(done.lines) == len(loud.lines)
    assert "told to all" in log.splitlines()  # the log is there to be read


def test_a_verbose_search(searches):
    done, log = searches["-v"]
    assert all(TIME.match(line) for line in done.err.splitlines())
    assert re.search(rf" {TEST}: \d+ events read and checked in ", done.err)
    said = [line for line in log.splitlines() if "told" in line]
    assert all(TIME.match(line) for line in said)
    assert [TIME.sub("", line) for line in said] == ["told to all", "told in detail"]
    assert "told in detail" not in searches[""][1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("error: no file", "\x1b[31merror:\x1b[0m no file"),
        ("2026-11-28 16:00:00 warning: late", "2026-11-28 16:00:00 \x1b[33mwarning:\x1b[0m late"),
        ("note: it says error: no file", "note: it says error: no file"),
        ("errors: none", "errors: none"),
    ],
)
def test_a_message_is_coloured_by_what_it_begins_with(monkeypatch, text, shown):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    try:
        with open(theirs, "w") as terminal:
            assert messages.laid_out(text, terminal) == shown
    finally:
        os.close(ours)
