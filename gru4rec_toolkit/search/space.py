"""Search spaces: files of JSON lines, the values they allow, and checks that these can be trained.

Plain Python without heavy imports. Numbers of a file stay decimal: 0.05 is a twentieth, and the
value that is passed on to a training is exactly a multiple of it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, Union

from gru4rec_toolkit import parameters
from gru4rec_toolkit.errors import InputError, check_regular, shortened
from gru4rec_toolkit.parameters.table import suggestion

if TYPE_CHECKING:
    import optuna


DTYPES = ("int", "float", "categorical")
FIELDS = ("name", "dtype", "values", "step", "log")
EXAMPLE = '{"name": "layers", "dtype": "int", "values": [64, 512], "step": 32}'
# number of combinations of extreme values that are checked before the first trial
MOST_COMBINATIONS = 20_000
# Bytes of a file: a space has a line a parameter, data that is given for it may have gigabytes.
LARGEST_FILE = 1 << 20
# Decimal computes with as many digits
MOST_DIGITS = 28
# powers of ten, beyond which float32, in which the model computes, has no numbers
LARGEST_EXPONENT = 37
# Optuna keeps numbers as floats, which do not tell larger integers apart.
LARGEST_INTEGER = 2**53
Number = Union[int, Decimal]


@dataclass(frozen=True)
class SearchParameter:
    """One parameter of a space.

    Attributes
    ----------
    name, dtype : str
        ``dtype`` is int, float or categorical.
    values : tuple
        Lowest and highest value; of a categorical parameter all values, as texts of a parameter
        string.
    step : int, Decimal or None
        Distance of neighbouring values; None: every float of the range.
    log : bool
        Whether values are drawn from the range of the logarithm.
    where : str
        File and line, for messages.
    """

    name: str
    dtype: str
    values: tuple
    step: Number | None
    log: bool
    where: str

    @property
    def scale(self) -> str:
        return "LOG" if self.log else "UNIFORM"

    @property
    def range(self) -> str:
        """Return the range of values in words."""
        if self.dtype == "categorical":
            return "{" + ", ".join(self.values) + "}"
        return f"{plain(self.values[0])} .. {plain(self.values[1])}"

    def suggest(self, trial: optuna.Trial) -> str:
        """Let Optuna choose a value; returns it as the text of a parameter string."""
        if self.dtype == "categorical":
            return trial.suggest_categorical(self.name, self.values)
        low, high = self.values
        if self.dtype == "int":
            # Optuna wants a step of 1 on the log scale
            int_step = 1 if self.step is None else int(self.step)
            value: float = trial.suggest_int(self.name, low, high, step=int_step, log=self.log)
        else:
            step = None if self.step is None else float(self.step)
            value = trial.suggest_float(
                self.name, float(low), float(high), step=step, log=self.log
            )
        return self.text(value)

    def text(self, value: Any) -> str:
        """Return a value that Optuna holds as the text that is passed on.

        Parameters
        ----------
        value : int, float or str
            For example 0.30000000000000004, which stands for low + 6 steps of 0.05.
        """
        if self.dtype == "categorical":
            return value
        if self.dtype == "int":
            return str(int(value))
        if self.step is None:
            return repr(float(value))
        n_steps = round((value - float(self.values[0])) / float(self.step))
        return plain(self.values[0] + n_steps * self.step)

    def n_values(self) -> int | None:
        """Return the number of values, without listing them; None if they are not countable."""
        if self.dtype == "categorical":
            return len(self.values)
        if self.step is None:
            return None
        low, high = self.values
        return int((high - low) // self.step) + 1

    def grid(self) -> list[int | float | str] | None:
        """Return all values, as Optuna takes them; None if they are not countable."""
        if self.dtype == "categorical":
            return list(self.values)
        n_values = self.n_values()
        if n_values is None or self.step is None:
            return None
        low = self.values[0]
        values = [low + i * self.step for i in range(n_values)]
        return [int(v) if self.dtype == "int" else float(v) for v in values]

    def samples(self) -> list[str]:
        """Return values that show whether the parameter takes the range: the extremes, an inner."""
        if self.dtype == "categorical":
            return list(self.values)
        low, high = self.values
        if self.step is not None:
            inner = min(low + self.step, high)
        else:
            inner = low + (high - low) * Decimal("0.618034")
        # written as `text` writes what Optuna chooses
        write = plain if self.step is not None else lambda value: repr(float(value))
        return list(dict.fromkeys(map(write, (low, inner, high))))

    def as_json(self) -> dict[str, Any]:
        """Return the parameter's definition, to tell whether two spaces are the same."""
        values = [v if isinstance(v, str) else plain(v) for v in self.values]
        step = None if self.step is None else plain(self.step)
        return {
            "name": self.name, "dtype": self.dtype, "values": values, "step": step, "log": self.log
        }  # fmt: skip


def plain(number: Number) -> str:
    """Write a decimal number without exponent and trailing zeros."""
    text = f"{Decimal(number):f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


# ---------------------------------------------------------------------------- reading


def read_space(path: str) -> list[SearchParameter]:
    """Read a search space: one JSON object a line, one parameter an object.

    ``{"name": "layers", "dtype": "int", "values": [64, 512], "step": 32}``; ``dtype`` is int, float
    or categorical (then ``values`` lists all); ``log`` is optional.

    Raises
    ------
    InputError
        Names the file and the line.
    """
    check_regular(path, "parameter space ")
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise InputError(
                f"parameter space {path}: it is larger than {LARGEST_FILE >> 20} MiB, so it is no "
                f"space; give a file with one JSON object a line, as {EXAMPLE}"
            )
        lines = re.split("\r\n|\n|\r", content.decode("utf-8-sig"))
    except OSError as err:
        raise InputError(f"parameter space {path}: {err.strerror}; check the path") from None
    except UnicodeDecodeError as err:
        number = content[: err.start].count(b"\n") + 1
        raise InputError(
            f"parameter space {path}, line {number}: not UTF-8 text; give a file with one JSON "
            f"object a line, as {EXAMPLE}"
        ) from None
    space: list[SearchParameter] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parameter = _read_parameter(line, f"parameter space {path}, line {number}")
        if parameter.name in [p.name for p in space]:
            raise InputError(
                f"{parameter.where}: {parameter.name} is searched twice; keep one line of it"
            )
        space.append(parameter)
    if not space:
        raise InputError(
            f"parameter space {path}: it is empty; it must hold one JSON object a line, as "
            f"{EXAMPLE}"
        )
    return space


def _read_parameter(line: str, where: str) -> SearchParameter:
    def fail(problem: str) -> NoReturn:
        raise InputError(f"{where}: {problem}")

    def no_such_number(text: str) -> NoReturn:
        fail(f"{text} is no number that can be searched; write a finite one")

    def integer(text: str) -> int:
        return int(number(text))

    def number(text: str) -> Decimal:
        # int() and Decimal() take texts of any length, and exponents whose digits fill the memory
        digits = re.sub(r"[eE].*|[-.]", "", text).strip("0")
        try:
            value = Decimal(text) if digits else Decimal(0)
            small_enough = abs(value.adjusted()) <= LARGEST_EXPONENT
        except ArithmeticError:
            small_enough = False
        if not small_enough or len(digits) > MOST_DIGITS:
            fail(
                f"number {_shortened(text)}: expected at most {MOST_DIGITS} digits, and 0 or a "
                f"size from 1e-{LARGEST_EXPONENT} to 1e{LARGEST_EXPONENT}"
            )
        return value

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
            fail(f"field {_shortened(repr(twice))} is given twice; give it once")
        return fields

    try:
        fields = json.loads(
            line,
            parse_int=integer,
            parse_float=number,
            parse_constant=no_such_number,
            object_pairs_hook=once,
        )
    except json.JSONDecodeError as err:
        fail(
            f"not valid JSON ({err.msg}, column {err.colno}); write one object a line, as {EXAMPLE}"
        )
    except RecursionError:
        fail(f"too many brackets in brackets; write one object a line, as {EXAMPLE}")
    if not isinstance(fields, dict):
        fail("expected a JSON object with name, dtype and values")
    for field in fields:
        if field not in FIELDS:
            fail(f"unknown field {_shortened(repr(field))}; the fields are {', '.join(FIELDS)}")
    for field in ("name", "dtype", "values"):
        if field not in fields:
            fail(f"field {field!r} is missing; name, dtype and values are needed")
    name, dtype, values = fields["name"], fields["dtype"], fields["values"]
    if not isinstance(name, str) or name not in parameters.PARAMETERS:
        close = suggestion(name) if isinstance(name, str) else None
        meant = f", did you mean {close}?" if close else ""
        fail(
            f"unknown parameter {_told(name)}{meant}; the parameters are "
            f"{', '.join(parameters.PARAMETERS)}"
        )
    if dtype not in DTYPES:
        fail(f"{name}: expected dtype {', '.join(DTYPES[:2])} or {DTYPES[2]}, got {_told(dtype)}")
    if not isinstance(values, list) or not values:
        fail(f"{name}: expected values as a list, got {_told(values)}")
    step, log = fields.get("step"), fields.get("log", False)
    if not isinstance(log, bool):
        fail(f"{name}: expected log true or false, got {_told(log)}")
    if dtype == "categorical":
        return _categorical(name, values, step, log, where, fail)
    return _numeric(name, dtype, values, step, log, where, fail)


def _categorical(name, values, step, log, where, fail) -> SearchParameter:
    if step is not None or log:
        fail(f"{name}: a categorical parameter has neither step nor log; leave them out")
    texts: dict[str, None] = {}  # unique values in order
    for value in values:
        parts = value if isinstance(value, list) else [value]
        if not parts or any(isinstance(part, (list, dict)) for part in parts):
            fail(f"{name}: expected texts, numbers, true or false as values, got {_told(value)}")
        text = "/".join(map(_show, parts))
        if text in texts:
            fail(f"{name}: value {_shortened(text)} is listed twice; list it once")
        if "," in text:
            fail(f"{name}: value {_told(text)} holds a comma; write lists with / (100/100)")
        if text.strip() != text or not text.isprintable():
            fail(
                f"{name}: value {_told(text)} begins or ends with a space or holds a character "
                "that cannot be printed; leave it out"
            )
        texts[text] = None
    return SearchParameter(name, "categorical", tuple(texts), None, False, where)


def _numeric(name, dtype, values, step, log, where, fail) -> SearchParameter:
    kinds = (int,) if dtype == "int" else (int, Decimal)
    what = "integers" if dtype == "int" else "numbers"

    def is_number(value: Any) -> bool:
        return isinstance(value, kinds) and not isinstance(value, bool)

    if len(values) != 2 or not all(map(is_number, values)):
        fail(f"{name}: expected values [lowest, highest], two {what}, got {_told(values)}")
    low, high = values
    if low > high:
        fail(
            f"{name}: the lowest value {plain(low)} is above the highest {plain(high)}; "
            "exchange them"
        )
    if step is not None and (not is_number(step) or step <= 0):
        fail(f"{name}: expected a step above 0 among the {what}, got {_told(step)}")
    largest = max(abs(low), abs(high))
    if dtype == "int" and largest > LARGEST_INTEGER:
        fail(f"{name}: expected integers up to {LARGEST_INTEGER}, got {plain(largest)}")
    if step is not None and largest > step * LARGEST_INTEGER:
        fail(
            f"{name}: the step {plain(step)} is too small beside {plain(largest)} for floats, in "
            "which Optuna keeps numbers; make it longer or leave it out"
        )
    if log:
        if low <= 0:
            fail(f"{name}: log needs values above 0, got {plain(low)}")
        if step is not None and not (dtype == "int" and step == 1):
            fail(f"{name}: step and log exclude each other; leave one of them out")
    if dtype == "int":
        step = step or 1
    else:
        low, high = Decimal(low), Decimal(high)
        step = None if step is None else Decimal(step)
    if step is not None and not log:
        high = low + (high - low) // step * step  # the highest value that steps reach
        if dtype == "float":
            # what Optuna computes with: a float's shortest decimal
            seen_low, seen_high, seen_step = (Decimal(repr(float(n))) for n in (low, high, step))
            if (seen_high - seen_low) % seen_step:
                fail(
                    f"{name}: the lowest value {plain(low)} has more digits beside the step "
                    f"{plain(step)} than floats have, in which Optuna keeps numbers; round it, to "
                    "0 or to a multiple of the step, or leave the step out"
                )
    return SearchParameter(name, dtype, (low, high), step, log, where)


def _show(value: Any) -> str:
    """Return a JSON value as a parameter string writes it."""
    return plain(value) if isinstance(value, Decimal) else str(value)


def _told(value: Any, within: bool = False) -> str:
    """Return a JSON value as messages show it: short and in one line."""
    if isinstance(value, dict) or (within and isinstance(value, list)):
        return "{...}" if isinstance(value, dict) else "[...]"
    if isinstance(value, list):
        return _shortened("[" + ", ".join(_told(v, within=True) for v in value[:20]) + "]")
    return _shortened(_show(value) if isinstance(value, Decimal) else repr(value))


def _shortened(text: str) -> str:
    return shortened(text, 60)


# ---------------------------------------------------------------------------- checking


def check_space(space: Sequence[SearchParameter], fixed: Mapping[str, Any]) -> None:
    """Find out before the first trial whether all of a space can be trained.

    Parameters
    ----------
    space : sequence of SearchParameter
    fixed : mapping
        Fixed parameters, converted.

    Raises
    ------
    InputError
        If a parameter is fixed and searched, takes not all of its range, or if the extremes of the
        ranges contradict each other or the fixed parameters.
    """
    allowed = []
    for parameter in space:
        if parameter.name in fixed:
            raise InputError(
                f"{parameter.name} is fixed at {fixed[parameter.name]} and searched "
                f"({parameter.where}); take it out of the fixed parameters or out of the space"
            )
        try:
            values = [
                parameters.convert({parameter.name: text})[parameter.name]
                for text in parameter.samples()
            ]
        except InputError as err:
            raise InputError(f"{parameter.where}: {err}") from None
        allowed.append(values)
    base = {**parameters.defaults(), **fixed}
    names = [parameter.name for parameter in space]
    for combination in itertools.islice(itertools.product(*allowed), MOST_COMBINATIONS):
        chosen = dict(zip(names, combination))
        try:
            parameters.check_combination({**base, **chosen})
        except InputError as err:
            raise InputError(
                f"the space allows what cannot be trained: {err}, or change the space "
                f"({space[0].where.rsplit(',', 1)[0]}) or the fixed parameters (-fp)"
            ) from None


def grid_values(space: Sequence[SearchParameter], most: int) -> dict[str, list]:
    """Return every parameter's values for a grid search, at most `most` combinations.

    Raises
    ------
    InputError
        If a parameter has no step or there are too many combinations.
    """
    grid_size(space, most)
    return {p.name: values for p in space if (values := p.grid()) is not None}


def grid_size(space: Sequence[SearchParameter], most: int) -> int:
    """Return the number of a grid's combinations, which are counted, not listed.

    Raises
    ------
    InputError
        If a parameter has no step or there are too many combinations.
    """
    size = 1
    for parameter in space:
        n_values = parameter.n_values()
        if n_values is None:
            raise InputError(
                f"{parameter.where}: a grid search needs a step, but {parameter.name} has none; "
                "add one, or choose another --sampler"
            )
        size *= n_values
    if size > most:
        shown = f"{size:,}" if size < 10**15 else f"{Decimal(size):.1e}"
        raise InputError(
            f"the grid has {shown} combinations, but a grid search takes {most:,} at "
            "most; make the steps longer, fix some parameters, or choose another --sampler"
        )
    return size


def space_table(space: Sequence[SearchParameter]) -> str:
    """Return the space as a table: name, type, range, step, UNIFORM or LOG scale."""
    rows = [("PARAMETER", "TYPE", "RANGE", "STEP", "SCALE")]
    for p in space:
        step = "-" if p.step is None else plain(p.step)
        scale = "-" if p.dtype == "categorical" else p.scale
        rows.append((p.name, p.dtype, p.range, step, scale))
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of texts as lines with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths)).rstrip() for row in rows
    )
