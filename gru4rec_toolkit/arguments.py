"""The parser of every command line, and the options that several share, each of them once.

The standard library alone, so that ``-h`` answers at once. Names, defaults and meanings are those
of `run.py`; where an option does something of its own for one command line, that one says what.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import gru4rec_toolkit
from gru4rec_toolkit.errors import InputError, listed

# ranks are computed as 32-bit integers
LONGEST_LIST = 2**31 - 1
METRICS = ("recall", "mrr")
# parameters of the model that name columns, with the letter of their options
_COLUMNS = {
    "item_key": ("i", "item ids", "ItemId"),
    "session_key": ("s", "session ids", "SessionId"),
    "time_key": ("t", "time stamps", "Time"),
}
# what argparse says, and how this project says it
_SENTENCES = {
    r"argument (\S+): expected one argument": "{0}: expected a value, got none",
    r"argument (\S+): expected at least one argument": "{0}: expected a value or more, got none",
    r"argument (\S+): expected (\d+) arguments": "{0}: expected {1} values",
    r"argument (\S+): ignored explicit argument (.+)": "{0}: expected no value, got {1}",
    r"argument (\S+): invalid int value: (.+)": "{0}: expected a whole number, got {1}",
    r"argument (\S+): invalid float value: (.+)": "{0}: expected a number, got {1}",
    r"argument (\S+): not allowed with argument (\S+)": "{0} and {1} exclude each other; leave one "
    "out",
    r"ambiguous option: (\S+) could match (.+)": "{0} is the beginning of several options ({1}); "
    "write one out",
    r"argument (.+)": "{0}",  # what a type of ours says
}


class _Version(argparse.Action):
    """Prints the toolkit's version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"GRU4Rec {gru4rec_toolkit.__version__}")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one sentence, without the usage before it.

    Its `error`, and so the parsing, raises an `InputError` for `errors.run_cli` to print.
    """

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and keep the words for messages."""
        self._given = sys.argv[1:] if args is None else [*args]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise an InputError with a sentence, or one in the place of argparse's words."""
        raise InputError(self._sentence(message)) from None

    def _sentence(self, message: str) -> str:
        known = re.fullmatch(r"the following arguments are required: (.+)", message)
        if known:
            names = known[1].split(", ")
            are = "are" if len(names) > 1 else "is"
            return f"{listed(names)} {are} missing; see {self.prog} -h"
        known = re.fullmatch(r"one of the arguments (.+) is required", message)
        if known:
            return f"{listed(known[1].split(), 'or')} is needed; see {self.prog} -h"
        known = re.fullmatch(r"unrecognized arguments: (.+)", message, re.DOTALL)
        if known:
            return self._unknown(known[1])
        known = re.fullmatch(
            r"argument (\S+): invalid choice: (.+) \(choose from (.+)\)", message, re.DOTALL
        )
        if known:
            option, value, choices = known.groups()
            choices = choices.replace("'", "")  # Python 3.14 leaves them out by itself
            return f"{option}: expected one of {choices}, got {value}"
        for pattern, sentence in _SENTENCES.items():
            known = re.fullmatch(pattern, message, re.DOTALL)
            if known:
                return sentence.format(*known.groups())
        return message

    def _single_values(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield the options that take one value, each with that and the word that follows."""
        for name, *words in zip(self._given, self._given[1:], self._given[2:]):
            action = self._option_string_actions.get(name)
            if action is not None and action.nargs is None:
                yield name, (words[0], words[1])

    def _unknown(self, rest: str) -> str:
        """Return the sentence about arguments that nothing takes."""
        option = next((word for word in rest.split() if word.startswith("-")), None)
        if option is None:
            for name, value in self._single_values():
                if f"{rest} ".startswith(f"{value[1]} "):
                    return f"{name}: expected one value, got {value[0]} {rest}; see {self.prog} -h"
            return f"expected no further arguments, got {rest}; see {self.prog} -h"
        option = option.partition("=")[0]
        known = [name for action in self._actions for name in action.option_strings]
        close = difflib.get_close_matches(option, known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"see {self.prog} -h"
        return f"{self.prog} has no option {option}; {advice}"


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add ``-ik``, ``-sk`` and ``-tk``, which `given_columns` reads."""
    for name, (letter, content, default) in _COLUMNS.items():
        parser.add_argument(
            f"-{letter}k",
            f"--{name}",
            metavar=f"{letter.upper()}K",
            help=f"column of {content} (default: {default})",
        )


def add_user_column(
    parser: argparse.ArgumentParser,
    help: str = "the state is carried from one session of a user to the next",
) -> None:
    """Add ``-uk``, which `given_columns` reads where it is."""
    parser.add_argument("-uk", "--user_key", metavar="UK", help=f"column of user ids: {help}")


def given_columns(args: argparse.Namespace) -> dict[str, str]:
    """Return the columns that the command line names, as parameters of the model."""
    names = ("session_key", "item_key", "time_key", "user_key")
    named = {name: getattr(args, name, None) for name in names}
    return {name: column for name, column in named.items() if column is not None}


def add_test_sets(parser: argparse.ArgumentParser, help: str) -> None:
    """Add ``-t``, a list of files."""
    parser.add_argument("-t", "--test", metavar="TEST_PATH", nargs="+", default=[], help=help)


def add_list_lengths(
    parser: argparse.ArgumentParser, *flags: str, help: str, several: bool = True
) -> None:
    """Add the lengths of the lists that metrics look at, or one length; 20 by default."""
    kind: dict[str, Any] = {"nargs": "+", "default": [20]} if several else {"default": 20}
    parser.add_argument(*flags, metavar="AT", type=int, help=f"{help} (default: 20)", **kind)


def add_tie_mode(parser: argparse.ArgumentParser, modes: Sequence[str]) -> None:
    """Add ``-e``, one of `parameters.TIE_MODES`."""
    parser.add_argument(
        "-e",
        "--eval_type",
        metavar="MODE",
        choices=modes,
        default="standard",
        help=f"rank of a target that ties with other items: {', '.join(modes)} (default: standard)",
    )


def add_primary_metric(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add ``-pm``, the metric with a purpose ("is maximised")."""
    parser.add_argument(
        "-pm",
        "--primary_metric",
        choices=METRICS,
        default="recall",
        help=f"the metric that {purpose} (default: recall)",
    )


def add_model_class(parser: argparse.ArgumentParser) -> None:
    """Add ``-g``, the module of a variant."""
    parser.add_argument(
        "-g",
        "--gru4rec_model",
        metavar="GRFILE",
        default="gru4rec",
        help="module (or its .py file) that holds the GRU4Rec class (default: gru4rec)",
    )


def add_device(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add ``-d``, which `theano_setup.configure` takes; without a default that one chooses."""
    chosen = default or (
        "what THEANO_FLAGS or .theanorc_gru4rec name, else auto: a CUDA GPU where there is one, "
        "else the CPU"
    )
    parser.add_argument(
        "-d",
        "--device",
        metavar="D",
        default=default,
        help=f"auto, cpu, cuda0, cuda1..., opencl0:0... (default: {chosen})",
    )


def add_parameter_string(parser: argparse._ActionsContainer, help: str) -> None:
    """Add ``-ps``, which `parameters.parse_string` reads; a group of options takes it, too."""
    parser.add_argument("-ps", "--parameter_string", metavar="STRING", help=help)


def add_seed(parser: argparse.ArgumentParser, help: str, default: int | None = None) -> None:
    """Add ``--seed``, of what the command line draws at random."""
    parser.add_argument("--seed", metavar="N", type=int, default=default, help=help)


def add_save_model(parser: argparse.ArgumentParser) -> None:
    """Add ``-s``, where a trained model is written to."""
    parser.add_argument(
        "-s", "--save_model", metavar="MODEL_PATH", help="save the model after training"
    )


def add_force(parser: argparse.ArgumentParser, help: str) -> None:
    """Add ``--force``, which lets files be replaced."""
    parser.add_argument("--force", action="store_true", help=help)


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add ``-q`` and ``-v``, which `messages.set_up` takes."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-q", "--quiet", action="store_true", help="on standard error say errors and warnings only"
    )
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="on standard error say in more detail what is done, and when",
    )


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``, which prints it and ends the program."""
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
