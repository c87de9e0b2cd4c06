"""Search spaces: files of JSON lines, the values that they allow, what they do to the parameters.

Plain Python without heavy imports. Numbers of a file stay decimal: 0.05 is a twentieth, and the
value that is passed on to a training is exactly a multiple of it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, Union

import parameters
from user_errors import InputError, check_regular

if TYPE_CHECKING:
    import optuna

DTYPES = ("int", "float", "categorical")
FIELDS = ("name", "dtype", "values", "step", "log")
# combinations of extreme values that are checked before the first trial
MOST_COMBINATIONS = 20_000
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
        """The values as people read them."""
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
            value = trial.suggest_int(self.name, low, high, step=self.step, log=self.log)
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

    def grid(self) -> list[int | float | str] | None:
        """Return all values, as Optuna takes them; None if they are not countable."""
        if self.dtype == "categorical":
            return list(self.values)
        if self.step is None:
            return None
        low, high = self.values
        n_steps = int((high - low) / self.step)
        values = [low + i * self.step for i in range(n_steps + 1)]
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
        return list(dict.fromkeys([plain(low), plain(inner), plain(high)]))

    def as_json(self) -> dict[str, Any]:
        """Return what makes the parameter what it is, to tell whether two spaces are the same."""
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
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except OSError as err:
        raise InputError(f"parameter space {path}: {err.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"parameter space {path}: not UTF-8 text") from None
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
            '{"name": "layers", "dtype": "int", "values": [64, 512], "step": 32}'
        )
    return space


def _read_parameter(line: str, where: str) -> SearchParameter:
    def fail(problem: str) -> NoReturn:
        raise InputError(f"{where}: {problem}")

    def no_such_number(text: str) -> NoReturn:
        raise ValueError(f"{text} is no number")

    try:
        fields = json.loads(line, parse_float=Decimal, parse_constant=no_such_number)
    except (ValueError, RecursionError) as err:
        fail(
            f"not valid JSON ({err}); write one object a line, as "
            '{"name": "layers", "dtype": "int", "values": [64, 512], "step": 32}'
        )
    if not isinstance(fields, dict):
        fail("expected a JSON object with name, dtype and values")
    for field in fields:
        if field not in FIELDS:
            fail(f"unknown field {field!r}; the fields are {', '.join(FIELDS)}")
    for field in ("name", "dtype", "values"):
        if field not in fields:
            fail(f"field {field!r} is missing; name, dtype and values are needed")
    name, dtype, values = fields["name"], fields["dtype"], fields["values"]
    if not isinstance(name, str) or name not in parameters.PARAMETERS:
        fail(f"unknown parameter {name!r}; the parameters are {', '.join(parameters.PARAMETERS)}")
    if dtype not in DTYPES:
        fail(f"{name}: expected dtype {', '.join(DTYPES[:2])} or {DTYPES[2]}, got {dtype!r}")
    if not isinstance(values, list) or not values:
        fail(f"{name}: expected values as a list, got {_show(values)}")
    step, log = fields.get("step"), fields.get("log", False)
    if not isinstance(log, bool):
        fail(f"{name}: expected log true or false, got {_show(log)}")
    if dtype == "categorical":
        return _categorical(name, values, step, log, where, fail)
    return _numeric(name, dtype, values, step, log, where, fail)


def _categorical(name, values, step, log, where, fail) -> SearchParameter:
    if step is not None or log:
        fail(f"{name}: a categorical parameter has neither step nor log; leave them out")
    texts = []
    for value in values:
        parts = value if isinstance(value, list) else [value]
        if not parts or any(isinstance(part, (list, dict)) for part in parts):
            fail(f"{name}: expected texts, numbers, true or false as values, got {_show(value)}")
        texts.append("/".join(_show(part) for part in parts))
        if texts[-1] in texts[:-1]:
            fail(f"{name}: value {texts[-1]} is listed twice; list it once")
        if "," in texts[-1]:
            fail(f"{name}: value {texts[-1]!r} holds a comma; write lists with / (100/100)")
    return SearchParameter(name, "categorical", tuple(texts), None, False, where)


def _numeric(name, dtype, values, step, log, where, fail) -> SearchParameter:
    kinds = (int,) if dtype == "int" else (int, Decimal)
    what = "integers" if dtype == "int" else "numbers"

    def is_number(value: Any) -> bool:
        return isinstance(value, kinds) and not isinstance(value, bool)

    if len(values) != 2 or not all(map(is_number, values)):
        fail(f"{name}: expected values [lowest, highest], two {what}, got {_show(values)}")
    low, high = values
    if low > high:
        fail(f"{name}: the lowest value {low} is above the highest {high}; exchange them")
    if step is not None and (not is_number(step) or step <= 0):
        fail(f"{name}: expected a step above 0 among the {what}, got {_show(step)}")
    if log:
        if low <= 0:
            fail(f"{name}: log needs values above 0, got {low}")
        if step is not None and not (dtype == "int" and step == 1):
            fail(f"{name}: step and log exclude each other; leave one of them out")
    if dtype == "int":
        step = step or 1
    if step is not None and not log:
        high = low + (high - low) // step * step  # the highest value that steps reach
    return SearchParameter(name, dtype, (low, high), step, log, where)


def _show(value: Any) -> str:
    """A JSON value as a parameter string has it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_show, value)) + "]"
    return plain(value) if isinstance(value, Decimal) else str(value)


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
    for values in itertools.islice(itertools.product(*allowed), MOST_COMBINATIONS):
        chosen = dict(zip(names, values))
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
    values, n_combinations = {}, 1
    for parameter in space:
        grid = parameter.grid()
        if grid is None:
            raise InputError(
                f"{parameter.where}: a grid search needs a step, but {parameter.name} has none; "
                "add one, or choose another --sampler"
            )
        values[parameter.name] = grid
        n_combinations *= len(grid)
    if n_combinations > most:
        raise InputError(
            f"the grid has {n_combinations:,} combinations, but a grid search takes {most:,} at "
            "most; make the steps longer, fix some parameters, or choose another --sampler"
        )
    return values


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
