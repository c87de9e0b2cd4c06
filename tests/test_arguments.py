"""Options that several command lines share: they mean the same everywhere, and cost nothing."""

from __future__ import annotations

import argparse
import logging
import re
import runpy
import signal
import sys

import pytest
from helpers.cli import ROOT, Done, complaint, python

import gru4rec_toolkit
import paropt
import run
from examples import reproduce
from gru4rec_toolkit import arguments, errors, parameters, split, versions
from gru4rec_toolkit.data import report
from gru4rec_toolkit.errors import InputError

PARSERS = {
    "run.py": run.build_parser(),
    "paropt.py": paropt.build_parser(),
    "report": report.build_parser(),
    "split": split.build_parser(),
    "reproduce.py": reproduce.build_parser(),
}
# options that do something else with what they take: their texts differ, and one its number
OF_THEIR_OWN = {
    "--measure",
    "--test",
    "--force",
    "--parameter_string",
    "--primary_metric",
    "--seed",
    "--user_key",
    "--output",
}


def options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the options of a parser by their long names."""
    found = parser._actions
    return {action.option_strings[-1]: action for action in found if action.option_strings}


def meaning(name: str, action: argparse.Action) -> tuple:
    is_own = name in OF_THEIR_OWN
    texts = () if is_own else (action.help, action.nargs, str(action.default))
    return (*action.option_strings, action.dest, action.metavar, action.type, *texts)


def test_an_option_means_the_same_in_every_command_line():
    seen = {}
    for parser in PARSERS.values():
        for name, action in options(parser).items():
            seen.setdefault(name, set()).add(meaning(name, action))
    assert [name for name, meanings in seen.items() if len(meanings) > 1] == []


def test_no_option_of_several_command_lines_is_written_twice():
    shared = {name for name in options(PARSERS["run.py"]) if name in options(PARSERS["paropt.py"])}
    shared |= OF_THEIR_OWN | {"--save_model", "--device"}
    shared -= {"--help", "--output"}
    files = ["run.py", "paropt.py", "gru4rec_toolkit/data/report.py", "gru4rec_toolkit/split.py"]
    files += ["examples/reproduce.py", "examples/cli.py", "examples/quickstart/quickstart.py"]
    for file in files:
        text = (ROOT / file).read_text()
        # a call may pass the flags, as add_list_lengths takes them
        added = re.findall(r'\badd(?:_argument)?\(\s*(?:"-\w+",\s*)?"(--\w+)"', text)
        assert not shared & set(added), file


@pytest.mark.parametrize("name", ["run.py", "paropt.py", "report", "split"])
def test_columns_have_the_defaults_of_the_model(name):
    defaults = parameters.defaults()
    for key in ("session_key", "item_key", "time_key"):
        assert options(PARSERS[name])[f"--{key}"].help.endswith(f"(default: {defaults[key]})")


def test_given_columns():
    parser = argparse.ArgumentParser()
    arguments.add_columns(parser)
    assert arguments.given_columns(parser.parse_args([])) == {}
    given = arguments.given_columns(parser.parse_args(["-tk", "when", "--item_key", "what"]))
    assert given == {"item_key": "what", "time_key": "when"}


@pytest.mark.parametrize(
    "program",
    [
        ["run.py"],
        ["paropt.py"],
        ["-m", "gru4rec_toolkit.data.report"],
        ["-m", "gru4rec_toolkit.split"],
        ["examples/reproduce.py"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(program):
    done = python("-X", "importtime", *program, "-h", cwd=ROOT)
    assert done.code == 0
    modules = set(re.findall(r"^import time:.*\| +(\S+)$", done.err, re.M))
    assert "argparse" in modules
    assert not modules & {"numpy", "pandas", "theano", "optuna"}


@pytest.mark.parametrize("program", ["run.py", "paropt.py"])
def test_the_version_imports_nothing_heavy(program, tmp_path):
    done = python("-X", "importtime", ROOT / program, "--version", cwd=tmp_path)
    assert (done.code, done.out) == (0, f"GRU4Rec {gru4rec_toolkit.__version__}\n")
    modules = set(re.findall(r"^import time:.*\| +(\S+)$", done.err, re.M))
    assert not modules & {"numpy", "pandas", "theano", "optuna", "tqdm"}


def test_the_version_is_that_of_the_project(tmp_path, monkeypatch):
    text = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{gru4rec_toolkit.__version__}"' in text
    # of an installation, which has no pyproject.toml beside it
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "gru4rec_toolkit" / "versions.py"))
    monkeypatch.setattr(versions, "_installed", {"gru4rec": "7.8"}.get)
    assert gru4rec_toolkit.__version__ == "7.8"
    with pytest.raises(AttributeError, match="no attribute 'no_such'"):
        gru4rec_toolkit.no_such  # noqa: B018


# --- mistakes of the command line -----------------------------------------------------------------


def parser() -> arguments.Parser:
    made = arguments.Parser(prog="program.py")
    made.add_argument("path", metavar="PATH")
    made.add_argument("-n", "--number", type=int)
    made.add_argument("--share", type=float)
    made.add_argument("--two", nargs=2)
    made.add_argument("-m", "--mode", choices=["slow", "fast"])
    made.add_argument("-t", "--test", nargs="+")
    made.add_argument("--reset", action="store_true")
    group = made.add_mutually_exclusive_group()
    group.add_argument("--red", action="store_true")
    group.add_argument("--blue", action="store_true")
    return made


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "PATH is missing; see program.py -h"),
        ("data --nmber 3", "program.py has no option --nmber; did you mean --number?"),
        ("data --nmber=3", "program.py has no option --nmber; did you mean --number?"),
        ("data -x", "program.py has no option -x; see program.py -h"),
        ("data --zzz 1 2", "program.py has no option --zzz; see program.py -h"),
        ("data other", "expected no further arguments, got other; see program.py -h"),
        ("-n 5 data 10", "expected no further arguments, got 10; see program.py -h"),
        ("data -n 5 10", "-n: expected one value, got 5 10; see program.py -h"),
        ("data --share .5 1 2 --red", "--share: expected one value, got .5 1 2; see program.py -h"),
        ("data -n", "-n/--number: expected a value, got none"),
        ("data -n five", "-n/--number: expected a whole number, got 'five'"),
        ("data -n 1.5", "-n/--number: expected a whole number, got '1.5'"),
        ("data --share a", "--share: expected a number, got 'a'"),
        ("data --two 1", "--two: expected 2 values"),
        ("data -m slower", "-m/--mode: expected one of slow, fast, got 'slower'"),
        ("data -t", "-t/--test: expected a value or more, got none"),
        ("data --reset=1", "--reset: expected no value, got '1'"),
        ("data --red --blue", "--blue and --red exclude each other; leave one out"),
        (
            "data --re",
            "--re is the beginning of several options (--reset, --red); write one out",
        ),
    ],
)
def test_a_mistake_is_one_sentence(line, sentence):
    with pytest.raises(InputError) as said:
        parser().parse_args(line.split())
    assert str(said.value) == sentence


def test_several_missing_arguments():
    made = parser()
    made.add_argument("other", metavar="OTHER")
    made.add_argument("--key", required=True)
    with pytest.raises(InputError, match="^PATH, OTHER and --key are missing; see program.py -h$"):
        made.parse_args([])


def test_what_a_type_of_ours_says():
    def positive(text):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")

    made = parser()
    made.add_argument("--rate", type=positive)
    with pytest.raises(InputError, match="^--rate: expected a number above 0, got '-1'$"):
        made.parse_args(["data", "--rate=-1"])


SOURCES = {path: path.read_text() for path in ROOT.glob("*.py")}
for folder in ("gru4rec_toolkit", "examples", "benchmarks", "tools"):
    SOURCES.update({path: path.read_text() for path in sorted((ROOT / folder).rglob("*.py"))})
PROGRAMS = [
    path
    for path, text in SOURCES.items()
    if "\nif __name__ ==" in text and re.search(r"argparse|Parser\(|preprocess_cli\(", text)
]


def test_all_command_lines_have_this_parser():
    """But for the service, which does without the package: its own parser does the same."""
    pattern = re.compile(r"^class \w+\(argparse.ArgumentParser\)", re.MULTILINE)
    own = [str(path.relative_to(ROOT)) for path, text in SOURCES.items() if pattern.search(text)]
    assert own == ["gru4rec_toolkit/arguments.py", "examples/serving/problems.py"]
    assert not [path for path, text in SOURCES.items() if "ArgumentParser(" in text]
    assert len(PROGRAMS) > 30


@pytest.fixture
def program(monkeypatch, capsys):
    """Run a program in this process; return its exit code and what it says."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(path, *args):
        monkeypatch.syspath_prepend(str(path.parent))
        monkeypatch.setattr(sys, "argv", [str(path), *args])
        handlers = {number: signal.getsignal(number) for number in errors.ENDING_SIGNALS}
        disabled = logging.root.manager.disable
        try:
            with pytest.raises(SystemExit) as end:
                runpy.run_path(str(path), run_name="__main__")
        finally:
            logging.disable(disabled)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Done(end.value.code, *capsys.readouterr())

    return call


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program(program, path):
    """Its help fits a terminal of 80 columns; an option that it lacks ends with one sentence."""
    done = program(path, "-h")
    assert done.code == 0 and done.out.startswith("usage: ") and done.err == ""
    lines = [line for line in done.out.splitlines() if "https://" not in line]
    assert [line for line in lines if len(line) > 80] == []
    done = program(path, "--no_such_option")
    assert done.err == f"error: {complaint(done)}\n" and done.out == ""
