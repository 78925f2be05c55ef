"""
Opening results of which some cannot be opened: the others are kept. Loaded only when a pickle has failed to open.

Slow, in pure Python: what cannot be made has its error put in its place, what cannot be filled is noted with its error,
and the results that hold the one or the other are found by walking through them once more.
"""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class _Unopened:
    """Stands for an object that could not be made; whatever is to be put into it is dropped."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def _drop(self, *_: Any) -> None:
        pass

    append = extend = add = update = __setitem__ = _drop


def _made(make: Any, arguments: Any, keywords: Any = None) -> Any:
    if isinstance(make, _Unopened):
        return make
    try:
        return make(*arguments, **(keywords or {}))
    except Exception as error:  # noqa: BLE001 - objects raise anything when they are made
        return _Unopened(error)


def _new(kind: Any, arguments: Any, keywords: Any = None) -> Any:
    return kind if isinstance(kind, _Unopened) else _made(kind.__new__, (kind, *arguments), keywords)


# The one in Python: the documented one cannot be told what to do after a failure.
_Unpickler: Any = vars(pickle)["_Unpickler"]


def _filling(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """
    Return an instruction that goes on where an object cannot be filled, as where a key's ``__hash__`` fails.

    All of them take what they fill it with off the stack first. The object stays: others may hold it already.
    """

    def fill(self: _Careful) -> None:
        try:
            load(self)
        except Exception as error:  # noqa: BLE001 - objects raise anything when they are filled
            self.broken[id(self.stack[-1])] = self.stack[-1], error

    return fill


class _Careful(_Unpickler):  # type: ignore[misc]  # no stub knows it
    """
    An unpickler that goes on where an object cannot be made or filled.

    Attributes:
        broken: Objects that could not be filled and why, by their identity.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Unpickler.dispatch)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.broken: dict[int, tuple[Any, BaseException]] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except Exception as error:  # noqa: BLE001 - modules raise anything when they are imported
            return _Unopened(error)

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], arguments)

    def _newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _new(self.stack[-1], arguments)

    def _newobj_ex(self) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = _new(self.stack[-1], arguments, keywords)

    def _frozenset(self) -> None:
        parts = self.pop_mark()  # before the stack is asked for: it is another one afterwards
        self.append(_made(frozenset, (parts,)))

    def _build(self) -> None:
        if isinstance(self.stack[-2], _Unopened):
            self.stack.pop()
        else:
            self.load_build()

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.NEWOBJ[0]] = _newobj
    dispatch[pickle.NEWOBJ_EX[0]] = _newobj_ex
    dispatch[pickle.FROZENSET[0]] = _frozenset
    dispatch[pickle.BUILD[0]] = _filling(_build)
    for _code in (pickle.ADDITEMS, pickle.SETITEM, pickle.SETITEMS, pickle.APPEND, pickle.APPENDS):
        dispatch[_code[0]] = _filling(dispatch[_code[0]])


def opened(data: Any, buffers: Iterable[Any], pickler: Any) -> tuple[Any, Callable[[Any], BaseException | None]]:
    """
    Return what the pickle holds, and what tells of a part of it why it could not be opened, None if it could.

    Args:
        data: The pickle.
        buffers: Its buffers.
        pickler: A class that pickles whatever may be in it: to look into a part is to pickle it.
    """

    class Finder(pickler):  # type: ignore[misc]  # given at run time
        error: BaseException | None = None

        def persistent_id(self, obj: Any) -> Any:
            error = obj.error if isinstance(obj, _Unopened) else broken.get(id(obj), (obj, None))[1]
            self.error = self.error or error
            return None if error is None else 0

    unpickler = _Careful(io.BytesIO(data), buffers=buffers)
    whole, broken = unpickler.load(), unpickler.broken

    def trouble(part: Any) -> BaseException | None:
        finder = Finder(io.BytesIO(), protocol=5)
        try:
            finder.dump(part)
        except Exception as error:  # noqa: BLE001 - what does not pickle again was not looked at to its end
            return finder.error or error
        return finder.error

    return whole, trouble
