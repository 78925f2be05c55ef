"""
What programs register with the standard library, and set in it: read at a call, entered by workers.

    csv.field_size_limit(10**9)    logging.addLevelName(35, "NOTICE")    sqlite3.register_adapter(Point, str)

Of modules that the program has loaded, and where it is not what an import makes. What cannot be pickled stays behind.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize import _analysis, _function
from amorsize._backend._pickles import dumps
from amorsize._modules import loaded
from amorsize._outside import pass_on, suppressed

if TYPE_CHECKING:
    from collections.abc import Callable

    from amorsize._analysis import Dependencies

# What each module has of its own.
_DIALECTS: Final = frozenset({"excel", "excel-tab", "unix"})
_DIALECT: Final = (
    "delimiter", "doublequote", "escapechar", "lineterminator", "quotechar", "quoting", "skipinitialspace", "strict",
)  # fmt: skip
# What is only sent where one of these names is in the code.
_ONLY_FOR: Final = {
    "codecs": frozenset({"encode", "decode", "open", "read_text", "write_text", "TextIOWrapper"}),
    "mimetypes": frozenset({"guess_type", "guess_file_type", "guess_extension", "guess_all_extensions"}),
}

_LEVELS: Final = frozenset({"CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET"})


# What was read before, and its pickle: 10 us, and 500 in a kernel, where IPython has a converter for sqlite3.
_read: tuple[dict[str, Any], bytes] = ({}, b"")


def read(func: Callable[..., Any]) -> bytes:
    """Return what is set in the modules that are loaded, pickled; of what is large or hidden, what *func* names."""
    global _read  # noqa: PLW0603 - a cache of one tuple, replaced in one statement
    found: dict[str, Any] = {}
    known = _analysis.known_dependencies(func)
    names = frozenset[str]().union(*(_analysis.names_of(helper.__code__) for helper in known.functions))
    for name, (get, _) in _WAYS.items():
        if name in _ONLY_FOR and not names & _ONLY_FOR[name]:
            continue
        if (module := loaded(name)) is not None:
            with suppressed():  # modules that only look like those of the library
                found[name] = get(module, known)
    if found == _read[0]:
        return _read[1]
    try:
        data = dumps(found)
        if not _may_change(found):
            _read = found, data
    except Exception as error:  # noqa: BLE001 - objects raise anything when pickled: then one by one
        pass_on(error)
        data = dumps({name: value for name, value in found.items() if _can_be_pickled(value)})
    return data


def _may_change(found: dict[str, Any]) -> bool:
    """Tell whether something of the program's is among what was read, which may change inside."""
    adapters, converters = found.get("sqlite3", ((), ()))
    if adapters or any(map(found.get, ("codecs", "copyreg"))):
        return True
    return not all(_is_installed(way) for _, way in converters)


def _is_installed(way: Any) -> bool:
    """Tell whether a function is an installed package's, and holds nothing of its own."""
    if type(way) is not types.FunctionType or not _function.is_installed(way.__code__.co_filename):
        return False
    return not (way.__closure__ or way.__defaults__ or way.__kwdefaults__ or vars(way))


def _can_be_pickled(value: Any) -> bool:
    with suppressed():
        dumps(value)
        return True
    return False


# What the map before has entered: all of it, and by module.
_entered: tuple[bytes, dict[str, Any]] = (b"", {})


def enter(data: bytes) -> None:
    """Set it in a worker's modules; nothing where the map before has done so."""
    global _entered  # noqa: PLW0603 - of one worker, which runs one map at a time
    if data in {b"", _entered[0]}:
        return
    before, state = _entered[1], {}
    with suppressed():  # a class of a module that is not here
        state = pickle.loads(data)
    for name, value in state.items():
        if name not in before or before[name] != value:
            with suppressed():  # as above
                _WAYS[name][1](importlib.import_module(name), value)
    _entered = data, state


def _read_csv(csv: Any, _: Dependencies) -> Any:
    added = [(name, csv.get_dialect(name)) for name in csv.list_dialects() if name not in _DIALECTS]
    return csv.field_size_limit(), {name: {key: getattr(one, key) for key in _DIALECT} for name, one in added}


def _enter_csv(csv: Any, value: Any) -> None:
    csv.field_size_limit(value[0])
    for name, dialect in value[1].items():
        csv.register_dialect(name, **dialect)


def _read_sqlite(sqlite: Any, _: Dependencies) -> Any:
    adapters = [(key[0], value) for key, value in sqlite.adapters.items() if _analysis.is_put_there(value)]
    return adapters, [(key, value) for key, value in sqlite.converters.items() if _analysis.is_put_there(value)]


def _enter_sqlite(sqlite: Any, value: Any) -> None:
    for kind, adapter in value[0]:
        sqlite.register_adapter(kind, adapter)
    for name, converter in value[1]:
        sqlite.register_converter(name, converter)


def _read_handlers(codecs: Any, known: Dependencies) -> dict[str, Any]:
    """Return the handlers of errors of encodings that the code names, and the program has registered."""
    texts = {value for _, _, value in known.bindings if type(value) is str}
    codes = [helper.__code__ for helper in known.functions]
    for code in codes:  # grows
        codes += [const for const in code.co_consts if type(const) is types.CodeType]
        texts.update(const for const in code.co_consts if type(const) is str)
    found = {}
    for text in texts:
        with contextlib.suppress(LookupError, ValueError):  # no handler's name
            handler = codecs.lookup_error(text)
            if type(handler) is not types.BuiltinFunctionType:
                found[text] = handler
    return found


def _enter_handlers(module: Any, value: Any) -> None:
    for name, handler in value.items():
        module.register_error(name, handler)


def _read_types(mimetypes: Any, _: Dependencies) -> Any:
    known = mimetypes._types_map_default  # noqa: SLF001 - no public way
    return [(kind, end) for end, kind in mimetypes.types_map.items() if known.get(end) != kind]


def _enter_types(mimetypes: Any, value: Any) -> None:
    for kind, end in value:
        mimetypes.add_type(kind, end)


def _enter_levels(logging: Any, value: Any) -> None:
    for level, name in value:
        logging.addLevelName(level, name)


def _enter_zone(module: Any, value: Any) -> None:
    if module.tzname != value and hasattr(module, "tzset"):
        module.tzset()  # the variable has been set by then


_WAYS: Final[dict[str, tuple[Callable[[Any, Dependencies], Any], Callable[[Any, Any], Any]]]] = {
    "calendar": (lambda module, _: module.firstweekday(), lambda module, value: module.setfirstweekday(value)),
    "codecs": (_read_handlers, _enter_handlers),
    "copyreg": (
        lambda module, _: {kind: way for kind, way in module.dispatch_table.items() if _analysis.is_put_there(way)},
        lambda module, value: module.dispatch_table.update(value),
    ),
    "csv": (_read_csv, _enter_csv),
    "logging": (
        lambda module, _: [pair for pair in module._levelToName.items() if pair[1] not in _LEVELS],  # noqa: SLF001 - no public way
        _enter_levels,
    ),
    "mimetypes": (_read_types, _enter_types),
    "socket": (lambda module, _: module.getdefaulttimeout(), lambda module, value: module.setdefaulttimeout(value)),
    "sqlite3": (_read_sqlite, _enter_sqlite),
    "sys": (lambda module, _: list(module.argv), lambda module, value: setattr(module, "argv", value)),
    "tempfile": (lambda module, _: module.tempdir, lambda module, value: setattr(module, "tempdir", value)),
    "time": (lambda module, _: module.tzname, _enter_zone),
    "xml.etree.ElementTree": (
        lambda module, _: dict(module._namespace_map),  # noqa: SLF001 - no public way
        lambda module, value: module._namespace_map.update(value),  # noqa: SLF001 - as above
    ),
}
