"""Options that several command lines share: they mean the same everywhere, and cost nothing."""

from __future__ import annotations

import argparse
import re

import pytest
from helpers.cli import ROOT, python

import paropt
import run
from examples import reproduce
from gru4rec_toolkit import arguments, parameters
from gru4rec_toolkit.data import report

PARSERS = {
    "run.py": run.build_parser(),
    "paropt.py": paropt.build_parser(),
    "report": report.build_parser(),
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
    shared.remove("--help")
    files = ["run.py", "paropt.py", "gru4rec_toolkit/data/report.py"]
    files += ["examples/reproduce.py", "examples/cli.py", "examples/quickstart/quickstart.py"]
    for file in files:
        text = (ROOT / file).read_text()
        # a call may pass the flags, as add_list_lengths takes them
        added = re.findall(r'\badd(?:_argument)?\(\s*(?:"-\w+",\s*)?"(--\w+)"', text)
        assert not shared & set(added), file


@pytest.mark.parametrize("name", ["run.py", "paropt.py", "report"])
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
