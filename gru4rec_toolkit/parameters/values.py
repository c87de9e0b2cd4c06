"""The parameters of a model: their values, and the one home that they have in it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from gru4rec_toolkit.errors import InputError, printable, shown
from gru4rec_toolkit.parameters.table import (
    PARAMETERS,
    check_combination,
    convert,
    defaults,
    suggestion,
)


# The types are here and in HasParameters for type checkers; a test compares them with the table.
class _Fields(NamedTuple):
    loss: str
    final_act: str
    hidden_act: str
    layers: tuple[int, ...]
    n_epochs: int
    batch_size: int
    dropout_p_embed: float
    dropout_p_hidden: float
    learning_rate: float
    momentum: float
    lmbd: float
    embedding: int | str
    constrained_embedding: bool
    n_sample: int
    sample_alpha: float
    bpreg: float
    logq: float
    smoothing: float
    adapt: str | None
    adapt_params: tuple[float, ...]
    grad_cap: float
    sigma: float
    init_as_normal: bool
    train_random_order: bool
    time_sort: bool
    bptt: int
    dropout_mask: str
    max_sequence: int
    long_sequences: str
    session_key: str
    item_key: str
    time_key: str
    user_key: str | None
    session_border: str
    seed: int


class Values(_Fields):
    """The values of all parameters: immutable, with tuples for lists."""

    __slots__ = ()

    def changed(self, converted: Mapping[str, Any]) -> Values:
        """Return a copy with other values of some parameters, which `convert` gave."""
        values: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in converted.items()
        }
        return self._replace(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return a fresh dictionary, with lists."""
        return {n: list(v) if isinstance(v, tuple) else v for n, v in self._asdict().items()}

    @property
    def embedding_size(self) -> int:
        return self.embedding if isinstance(self.embedding, int) else self.layers[0]

    @property
    def architecture(self) -> tuple:
        """Everything that gives the weights their shapes and places."""
        return self.layers, self.constrained_embedding, self.embedding_size

    def difference(self, other: Values) -> str:
        """Say which values differ from others, in the form ``layers=[24], batch_size=16``."""
        theirs = other.as_dict()
        return ", ".join(f"{n}={v!r}" for n, v in self.as_dict().items() if v != theirs[n])


def announce(changed: Mapping[str, Any]) -> None:
    """Print parameters that were set, one ``SET`` line each."""
    texts = {name: printable(str(value)) for name, value in changed.items()}
    name_width = max(map(len, texts), default=0)
    value_width = max(map(len, texts.values()), default=0)
    for name, text in texts.items():
        kind = type(changed[name])
        print(f"SET   {name:<{name_width}}   TO   {text:<{value_width}}   (type: {kind})")


class ReadOnlyList(list):
    """A parameter that is a list, as an attribute gives it; changes in it would be lost."""

    def _refuse(self, *_: Any) -> NoReturn:
        raise InputError(
            "a list that is a parameter cannot be changed in place; set the parameter to another "
            "list, as in gru.layers = [200, 100]"
        )

    # a list's methods have other arguments, all of which are refused
    append = extend = insert = pop = remove = clear = sort = reverse = _refuse  # type: ignore[assignment]
    __setitem__ = __delitem__ = __imul__ = _refuse

    # another list on purpose: the parameter is set to it
    def __iadd__(self, other: Iterable) -> list:  # type: ignore[override,misc]
        return [*self, *other]  # gru.layers += [100] sets the parameter to this

    def __reduce__(self) -> tuple:
        return list, (list(self),)


class _Attribute(property):
    """A parameter as an attribute of `HasParameters`."""

    def __init__(self, name: str) -> None:
        def get(model: HasParameters) -> Any:
            value = getattr(model.settings, name)
            return ReadOnlyList(value) if isinstance(value, tuple) else value

        def assign(model: HasParameters, value: Any) -> None:
            model.settings = model.settings.changed(convert({name: value}))

        super().__init__(get, assign, doc=PARAMETERS[name].allowed)


class HasParameters:
    """A model whose parameters live in one place, whichever way they are set.

    Attributes, `set_params` and the constructor check and convert a value before anything is set.
    Lists cannot be changed in place. A parameter in the body of a subclass is its default there.
    """

    loss: str
    final_act: str
    hidden_act: str
    layers: list[int]
    n_epochs: int
    batch_size: int
    dropout_p_embed: float
    dropout_p_hidden: float
    learning_rate: float
    momentum: float
    lmbd: float
    embedding: int | str
    constrained_embedding: bool
    n_sample: int
    sample_alpha: float
    bpreg: float
    logq: float
    smoothing: float
    adapt: str | None
    adapt_params: list[float]
    grad_cap: float
    sigma: float
    init_as_normal: bool
    train_random_order: bool
    time_sort: bool
    bptt: int
    dropout_mask: str
    max_sequence: int
    long_sequences: str
    session_key: str
    item_key: str
    time_key: str
    user_key: str | None
    session_border: str
    seed: int

    # all values as they are set now; immutable
    settings = Values(**defaults()).changed(defaults())

    def __init__(self, *unnamed: Any, **settings: Any) -> None:
        if unnamed:
            raise InputError(
                f"{type(self).__name__} takes its parameters by name, as in "
                f"{type(self).__name__}(layers=[100]), got {shown(unnamed[0])} without a name"
            )
        self.apply(settings)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        found = {name: inspect.getattr_static(cls, name) for name in PARAMETERS}
        own = {name: v for name, v in found.items() if not isinstance(v, _Attribute)}
        cls.settings = cls.settings.changed(convert(own))
        for name in own:
            setattr(cls, name, _Attribute(name))

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(self, name):
            self._check_spelling(name)
        super().__setattr__(name, value)

    def _check_spelling(self, name: str) -> None:
        """Reject a new attribute with the name of a parameter, misspelt."""
        close = suggestion(name)
        if close is None:
            return
        complaint = f"{type(self).__name__} has no parameter {name}; did you mean {close}?"
        if HasParameters in type(self).__bases__:
            raise InputError(complaint)
        # a variant's own attribute can be called so
        warnings.warn(
            f"{complaint} If not, give {name} a value in the body of the class", stacklevel=3
        )

    def get_params(self) -> dict[str, Any]:
        """Return all parameters as they are set now, in a fresh dictionary."""
        return self.settings.as_dict()

    def set_params(self, **settings: Any) -> HasParameters:
        """Set parameters from strings or values and print them, one ``SET`` line each.

        Returns
        -------
        The model itself.

        Raises
        ------
        gru4rec_toolkit.errors.InputError
            On an unknown name, a wrong type, a value out of range or a contradiction; nothing is
            set then.
        """
        announce(self.apply(settings))
        return self

    def apply(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Set parameters, all or none of them; return them converted."""
        changed = convert(settings)
        values = self.settings.changed(changed)
        check_combination(values.as_dict())
        self.settings = values
        return changed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.difference(type(self).settings)})"


for _name in PARAMETERS:
    setattr(HasParameters, _name, _Attribute(_name))
# for help() and the completion in notebooks; typeshed's functions have no such attribute
HasParameters.__init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        for name, value in defaults().items()
    ]
)
