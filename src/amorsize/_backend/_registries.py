"""
What programs register with the standard library, and set in it: read at a call, entered by workers.

    csv.field_size_limit(10**9)    logging.addLevelName(35, "NOTICE")    sqlite3.register_adapter(Point, str)

Of modules that the program has loaded, and where it is not what an import makes. Where a function uses such a module,
and what is set there cannot be pickled, the function stays here. Of libraries: :mod:`amorsize._backend._libraries`.
"""

from __future__ import annotations

import contextlib
import importlib
import pickle
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize import _analysis, _function
from amorsize._backend import _abstract, _libraries
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

# Of the opener that urlopen makes for itself.
_HANDLERS: Final = frozenset(
    ["ProxyHandler", "UnknownHandler", "HTTPHandler", "HTTPDefaultErrorHandler", "HTTPRedirectHandler", "FTPHandler",
     "FileHandler", "HTTPErrorProcessor", "DataHandler", "HTTPSHandler"]
)  # fmt: skip

_LEVELS: Final = frozenset({"CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET"})


# What was read before, and its pickle: 10 us, and 500 in a kernel, where IPython has a converter for sqlite3.
_read: tuple[dict[str, Any], bytes] = ({}, b"")
_PROGRAM_S: Final = ("abc", "codecs", "copyreg", "logging", "numpy", "pandas", "ssl", "urllib.request")


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
    except Exception as error:  # objects raise anything when pickled: then one by one
        pass_on(error)
        sent = {name: value for name, value in found.items() if _can_be_pickled(value)}
        used = _libraries.used(known)
        if lost := [name for name in found if name not in sent and name.partition(".")[0] in used]:
            message = f"what is set in {lost[0]} cannot be pickled"
            raise ValueError(message) from error
        data = dumps(sent)
    return data


def _may_change(found: dict[str, Any]) -> bool:
    """Tell whether something of the program's is among what was read, which may change inside."""
    adapters, converters = found.get("sqlite3", ((), ()))
    if adapters or any(map(found.get, _PROGRAM_S)):
        return True
    return not all(_is_installed(way) for _, way in converters)


def _is_installed(way: Any) -> bool:
    """Tell whether a function is an installed package's, and holds nothing of its own."""
    if type(way) is not types.FunctionType or _is_the_program_s(way):
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
                module = importlib.import_module(name) if value else loaded(name)
                if module is not None:  # else nothing is set in it yet
                    _WAYS[name][1](module, value)
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


def _read_logging(logging: Any, _: Dependencies) -> dict[str, Any]:
    """Return names of levels, methods of loggers, and what makes records and loggers: what the program has set."""
    made = {name: vars(logging)[name] for name in ("_logRecordFactory", "_loggerClass")}
    levels = [pair for pair in logging._levelToName.items() if pair[1] not in _LEVELS]  # noqa: SLF001 - no public way
    found: dict[str, Any] = {name: way for name, way in made.items() if _analysis.is_put_there(way)}
    methods = {name: way for name, way in vars(logging.Logger).items() if _is_the_program_s(way) and name != "handle"}
    return found | ({"levels": levels} if levels else {}) | ({"methods": methods} if methods else {})


def _is_the_program_s(value: Any) -> bool:
    """Tell whether a function is of the program's code: what packages put in place of methods goes with them."""
    return type(value) is types.FunctionType and not _function.is_installed(value.__code__.co_filename)


def _enter_logging(logging: Any, value: dict[str, Any]) -> None:
    for level, name in value.get("levels", ()):
        logging.addLevelName(level, name)
    for name, method in value.get("methods", {}).items():
        setattr(logging.Logger, name, method)
    logging.setLogRecordFactory(value.get("_logRecordFactory", logging.LogRecord))
    logging.setLoggerClass(value.get("_loggerClass", logging.Logger))


def _enter_zone(module: Any, value: Any) -> None:
    if module.tzname != value and hasattr(module, "tzset"):
        module.tzset()  # the variable has been set by then


def _enter_sys(sys: Any, value: Any) -> None:
    sys.argv, limit = value
    if limit is not None:
        sys.tracebacklimit = limit
    elif hasattr(sys, "tracebacklimit"):
        del sys.tracebacklimit


def _enter_collector(gc: Any, value: Any) -> None:
    gc.enable() if value[0] else gc.disable()
    gc.set_threshold(*value[1])


def _read_domain(gettext: Any, _: Dependencies) -> Any:
    return gettext.textdomain(), dict(gettext._localedirs)  # noqa: SLF001 - no public way


def _enter_domain(gettext: Any, value: Any) -> None:
    gettext.textdomain(value[0])
    for domain, folder in value[1].items():
        gettext.bindtextdomain(domain, folder)


def _read_context(ssl: Any, _: Dependencies) -> Any:
    """Return what makes the contexts of HTTPS, which programs replace that meet certificates of their own."""
    made = ssl._create_default_https_context  # noqa: SLF001 - the documented way
    return None if made is ssl.create_default_context else made


def _enter_context(ssl: Any, value: Any) -> None:
    ssl._create_default_https_context = value or ssl.create_default_context  # noqa: SLF001 - as above


def _read_opener(request: Any, _: Dependencies) -> Any:
    """Return the headers and the handlers of the opener that is installed, as far as they are not as urlopen's own."""
    if (opener := request._opener) is None:  # noqa: SLF001 - no public way
        return None
    handlers = [one for one in opener.handlers if type(one).__name__ not in _HANDLERS or not _is_usual(request, one)]
    if not handlers and opener.addheaders == [("User-agent", f"Python-urllib/{request.__version__}")]:
        return None
    return opener.addheaders, [(type(handler), {**vars(handler), "parent": None}) for handler in handlers]


def _is_usual(request: Any, handler: Any) -> bool:
    is_known = type(handler).__module__ == request.__name__
    return is_known and getattr(handler, "proxies", None) in (None, request.getproxies())


def _enter_opener(request: Any, value: Any) -> None:
    if value is None:
        request.install_opener(None)
        return
    handlers = []
    for kind, state in value[1]:
        handler = kind.__new__(kind)
        vars(handler).update(state)
        handlers.append(handler)
    opener = request.build_opener(*handlers)
    opener.addheaders = value[0]
    request.install_opener(opener)


def _variables(*names: str) -> tuple[Callable[[Any, Dependencies], Any], Callable[[Any, Any], Any]]:
    """Return how to read, and to set, variables of a module whose values are numbers, or lists of texts."""

    def get(module: Any, _: Dependencies) -> dict[str, Any]:
        values = {name: vars(module)[name] for name in names if name in vars(module)}
        return {name: list(value) if type(value) is list else value for name, value in values.items()}

    def put(module: Any, value: dict[str, Any]) -> None:
        vars(module).update(value)

    return get, put


_WAYS: Final[dict[str, tuple[Callable[[Any, Dependencies], Any], Callable[[Any, Any], Any]]]] = {
    "calendar": (lambda module, _: module.firstweekday(), lambda module, value: module.setfirstweekday(value)),
    "codecs": (_read_handlers, _enter_handlers),
    "copyreg": (
        lambda module, _: {kind: way for kind, way in module.dispatch_table.items() if _analysis.is_put_there(way)},
        lambda module, value: module.dispatch_table.update(value),
    ),
    "csv": (_read_csv, _enter_csv),
    "gc": (lambda module, _: (module.isenabled(), module.get_threshold()), _enter_collector),
    "gettext": (_read_domain, _enter_domain),
    "http.client": _variables("_MAXHEADERS", "_MAXLINE"),
    "logging": (_read_logging, _enter_logging),
    "mimetypes": (_read_types, _enter_types),
    "socket": (lambda module, _: module.getdefaulttimeout(), lambda module, value: module.setdefaulttimeout(value)),
    "sqlite3": (_read_sqlite, _enter_sqlite),
    "ssl": (_read_context, _enter_context),
    "sys": (lambda module, _: (list(module.argv), getattr(module, "tracebacklimit", None)), _enter_sys),
    "tempfile": (lambda module, _: module.tempdir, lambda module, value: setattr(module, "tempdir", value)),
    "reprlib": (lambda module, _: dict(vars(module.aRepr)), lambda module, value: vars(module.aRepr).update(value)),
    "time": (lambda module, _: module.tzname, _enter_zone),
    "urllib.parse": _variables("uses_relative", "uses_netloc", "uses_params"),
    "urllib.request": (_read_opener, _enter_opener),
    "xml.etree.ElementTree": (
        lambda module, _: dict(module._namespace_map),  # noqa: SLF001 - no public way
        lambda module, value: module._namespace_map.update(value),  # noqa: SLF001 - as above
    ),
    "zoneinfo": (
        lambda module, _: module.TZPATH,
        lambda module, value: value == module.TZPATH or module.reset_tzpath(to=value),
    ),
    "abc": (_abstract.read, _abstract.enter),
    **_libraries.WAYS,
}
