import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module


class Part(Module):
    r"""A module that remembers the arguments it was made of: a model, an objective, a fusion.

    They are in :attr:`hparams`, its ``repr`` shows them all, and a checkpoint carries them
    (:meth:`settings`, :func:`build`). A subclass has to do nothing for it.
    """

    hparams: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if '__init__' in cls.__dict__:
            cls.__init__ = _recorded(cls.__init__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        self.__dict__.setdefault('hparams', {})
        self._numbers: dict[str, tuple[Tensor, int | None, float]] = {}

    def settings(self) -> dict[str, Any]:
        r"""Returns the class and the arguments as plain values, which :func:`build` takes.

        Raises:
            ValueError: If an argument is neither a number, a string, a list, a mapping nor another part.
        """
        where = f'{type(self).__module__}:{type(self).__qualname__}'
        return {'class': where} | {name: _plain(value, name) for name, value in self.hparams.items()}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def number(self, name: str) -> float:
        r"""Returns the number in a buffer. It is read only after a change, since reading waits for a GPU."""
        buffer = self.get_buffer(name)
        version = None if buffer.is_inference() else buffer._version
        known = self._numbers.get(name)
        if buffer.is_meta:  # which holds none
            return 0.0 if known is None else known[2]
        if known is None or version is None or known[0] is not buffer or known[1] != version:
            known = self._numbers[name] = buffer, version, float(buffer)
        return known[2]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_numbers': {}}

    def __repr__(self) -> str:
        required = _required(type(self))
        shown = [repr(value) if name in required else f'{name}={value!r}' for name, value in self.hparams.items()]
        return f'{type(self).__name__}({", ".join(shown)})'


def build(settings: Mapping[str, Any]) -> Any:
    r"""Makes a part from what :meth:`Part.settings` returned.

    Only classes that are known to the process already are used: nothing is imported by its name.

    Raises:
        ValueError: If the class is not known.
    """
    kwargs = {name: build(value) if _is_settings(value) else value for name, value in settings.items()}
    return find_class(kwargs.pop('class'))(**kwargs)


def find_class(where: str) -> type[Part]:
    r"""Returns the subclass of :class:`Part` of the given ``module:name``.

    A class that has moved to another module is found by its name, if no other class has that.
    """
    name = where.partition(':')[2]
    known = [cls for cls in _subclasses(Part) if cls.__qualname__ == name]
    exact = [cls for cls in known if f'{cls.__module__}:{name}' == where]
    if exact:
        return exact[-1]
    if len(known) != 1:
        found = f'{len(known)} classes of that name' if known else 'none of that name'
        raise ValueError(f"the class '{where}' needs to be known: import the module that defines it (got {found})")
    return known[0]


def _subclasses(cls: type[Part]) -> list[type[Part]]:
    return [found for sub in cls.__subclasses__() for found in (sub, *_subclasses(sub))]


def _is_settings(value: Any) -> bool:
    return isinstance(value, Mapping) and 'class' in value


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Part):
        return value.settings()
    if isinstance(value, Mapping):
        return {key: _plain(entry, name) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, name) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"'{name}' needs to be a plain value or a part, to be kept in a checkpoint (got {value!r})")


def _required(cls: type) -> set[str]:
    r"""Returns the names of the arguments without a default."""
    return {p.name for p in parameters(cls).values() if p.default is p.empty}


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    r"""Returns the arguments that a class takes, those that ``**kwargs`` hands on to its parents included."""
    out: dict[str, inspect.Parameter] = {}
    for parent in cls.__mro__:
        if '__init__' not in parent.__dict__:
            continue
        own = list(inspect.signature(parent.__dict__['__init__']).parameters.values())[1:]
        named = [p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        out |= {p.name: p for p in named if p.name not in out}
        if all(p.kind != p.VAR_KEYWORD for p in own):
            break
    return out


def _recorded(init: Callable[..., None]) -> Callable[..., None]:
    r"""Lets a constructor record its arguments: the outermost one, and those to whom its ``**kwargs`` go."""
    signature = inspect.signature(init)
    kinds = {p.name: p.kind for p in signature.parameters.values()}

    @functools.wraps(init)
    def wrapper(self: Part, *args: Any, **kwargs: Any) -> None:
        if self.__dict__.get('_recording', True):
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            found: dict[str, Any] = {}
            for name, value in list(bound.arguments.items())[1:]:
                if kinds[name] is inspect.Parameter.VAR_KEYWORD:
                    found |= value
                elif kinds[name] is not inspect.Parameter.VAR_POSITIONAL:
                    found[name] = value
                elif value:
                    raise TypeError(f'arguments of {type(self).__name__} need to be named (got {value})')
            hparams = self.__dict__.setdefault('hparams', {})
            for name, value in found.items():
                hparams.setdefault(name, _copied(value))
            self.__dict__['_recording'] = inspect.Parameter.VAR_KEYWORD in kinds.values()
        init(self, *args, **kwargs)

    return wrapper


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(entry) for key, entry in value.items()}
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.dim() == 0):
        return value.item()
    return list(value) if isinstance(value, list) else value
