"""
What sets something that the whole process goes by: whether each item sets the same, or a late one may be the first.

    logging.disable(10)                      on every path, to a constant: each worker's items set it, too
    if x > limit: logging.disable(10)        under a condition
    logging.disable(x)                       to what an item says

The first is watched while the sample runs. The others are changes of outside state: a worker that has computed no such
item goes on with what was set before. Of what is set on the way to an item's result and set back by a ``with``
statement, nothing is left; nor of a handler or filter of a logger that a ``finally`` block takes away again.
"""

from __future__ import annotations

import dis
import functools
import itertools
import re
import types
from typing import TYPE_CHECKING, Any, Final

from amorsize._analysis import inert
from amorsize._analysis.bytecode import RUNS_LATER, protected, steps
from amorsize._analysis.look import Setting
from amorsize._analysis.values import CODE, EXACT, METHOD, Ref, Value
from amorsize._attribute import is_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amorsize._analysis.look import Frame, Look

# Functions that set something for the whole process, by the module they are known by.
_SETTERS: Final[dict[str, frozenset[str]]] = {
    module: frozenset(names.split())
    for module, names in {
        "asyncio": "set_event_loop_policy set_child_watcher",
        "calendar": "setfirstweekday",
        "cgitb": "reset enable",
        "codecs": "register unregister register_error",
        "copyreg": "pickle constructor add_extension remove_extension clear_extension_cache",
        "csv": "register_dialect unregister_dialect field_size_limit",
        "ctypes": "set_errno set_last_error",
        "decimal": "setcontext",
        "faulthandler": "enable disable register unregister",
        "gc": "enable disable set_debug set_threshold freeze unfreeze",
        "gettext": "install bindtextdomain textdomain",
        "importlib": "reload",
        "joblib": "register_parallel_backend register_store_backend register_compressor",
        "locale": "setlocale resetlocale bindtextdomain textdomain",
        "logging": "addLevelName setLogRecordFactory setLoggerClass basicConfig disable captureWarnings",
        "logging.config": "dictConfig fileConfig",
        "mimetypes": "add_type init",
        "numba": "set_num_threads set_parallel_chunksize",
        "numpy": "seterr seterrcall setbufsize set_printoptions set_string_function set_numeric_ops seed set_state "
                 "set_bit_generator",
        "os": "chdir fchdir chroot nice setpriority umask putenv unsetenv setuid seteuid setreuid setgid setegid "
              "setregid setgroups initgroups setpgrp setpgid setsid sched_setaffinity",
        "pandas": "set_option reset_option set_eng_float_format",
        "readline": "set_history_length set_completer set_completer_delims set_auto_history",
        "resource": "setrlimit",
        "shutil": "register_archive_format unregister_archive_format register_unpack_format unregister_unpack_format",
        "signal": "signal setitimer alarm siginterrupt set_wakeup_fd pthread_sigmask",
        "site": "addsitedir",
        "sklearn": "set_config",
        "socket": "setdefaulttimeout sethostname",
        "sqlite3": "enable_callback_tracebacks register_adapter register_converter",
        "sys": "setswitchinterval setdlopenflags setprofile setrecursionlimit settrace set_asyncgen_hooks "
               "set_coroutine_origin_tracking_depth set_int_max_str_digits",
        "syslog": "openlog closelog setlogmask",
        "threading": "setprofile settrace stack_size setprofile_all_threads settrace_all_threads",
        "time": "tzset",
        "tracemalloc": "start stop clear_traces reset_peak",
        "urllib": "install_opener",
        "warnings": "filterwarnings simplefilter resetwarnings",
        "webbrowser": "register",
        "xml": "register_namespace",
        "yaml": "add_constructor add_multi_constructor add_representer add_multi_representer add_implicit_resolver "
                "add_path_resolver",
        "zoneinfo": "reset_tzpath",
    }.items()
}  # fmt: skip

# Those that add something with each call, also where it is the same each time.
_ADDERS: Final = frozenset(
    [("atexit", "register"), ("atexit", "unregister"), ("os", "register_at_fork"), ("os", "nice"),
     ("sys", "addaudithook"), ("readline", "add_history"), ("readline", "clear_history"),
     ("unittest", "addModuleCleanup")]
)  # fmt: skip

# How modules are called whose functions are written elsewhere.
_KNOWN_AS: Final = {"posix": "os", "nt": "os", "thread": "threading", "py_warnings": "warnings"}

# How methods begin that change their object: with these letters, or with these words.
_SETTING: Final = ("set", "add", "remove", "write", "register", "unregister", "enable", "disable", "reset", "clear",
                   "config")  # fmt: skip
_SETTING_WORD: Final = re.compile(
    "(append|insert|extend|push|pop|put|delete|update|feed|fit|partial_fit|move|sort|reverse|shuffle|seek|close|read|"
    "load|dump|callback|enter_context|enter_async_context)"
    "(_|[A-Z]|$)"
)

# What is left as it was by what manages it: the module whose settings, by the name of the function or class.
_RESTORING: Final = {
    "localcontext": "decimal",
    "catch_warnings": "warnings",
    "errstate": "numpy",
    "printoptions": "numpy",
    "option_context": "pandas",
    "config_context": "sklearn",
    "chdir": "os",
}


# Methods that add something which another one takes away.
_TAKEN_BACK_BY: Final = {"addHandler": "removeHandler", "addFilter": "removeFilter"}


class Shared:
    """What a function of a library gives to all who ask for it, in one look: a logger, the context of decimals."""

    __slots__ = ("module",)

    def __init__(self, module: str) -> None:
        self.module = module


# numpy.random before anybody has asked for it: NumPy then loads it.
NUMPY_RANDOM: Final = Shared("numpy.random")

# Functions that give such an object.
_SHARED: Final = {
    (module, name): Shared(module)
    for module, name in (
        ("logging", "getLogger"),
        ("decimal", "getcontext"),
        ("threading", "current_thread"),
        ("threading", "main_thread"),
        ("multiprocessing", "current_process"),
        ("asyncio", "get_event_loop_policy"),
    )
}


def _known_as(module: str) -> str:
    name = module.partition(".")[0].removeprefix("_")
    return _KNOWN_AS.get(name, name)


def shared_object(module: str, name: str) -> Value:
    """Return what a function gives to all who ask for it; nothing where it gives something new."""
    known = _known_as(module)
    found = _SHARED.get((known, name))
    return () if found is None else (Ref(EXACT, found, f"{known}.{name}()"),)


def set_known(look: Look, module: str, name: str, args: Iterable[Value]) -> None:
    """Note what a function of a library sets for the whole process, where that is known."""
    known = _known_as(module)
    if (known, name) in _ADDERS:
        look.changes[f"{known}.{name}()"] = None
    elif name in _SETTERS.get(known, ()) or name in _SETTERS.get(module, ()):
        note(look, f"{known}.{name}()", known, args, by=name)


def is_setter(name: str) -> bool:
    """Tell by its name whether a method sets something of its object."""
    return name.startswith(_SETTING) or _SETTING_WORD.match(name) is not None


def note(look: Look, what: str, module: str, args: Iterable[Value], *, by: str = "") -> None:
    """
    Note that *what*, of *module*, is set to *args*, by an instruction of the running code or what it calls.

    *by* names the function or method that sets it: if the code calls another one, that may or may not call it.
    """
    to: Any = tuple(map(_constant, args))
    if None in to or (by and look.frames and _called(look.frames[-1].callee)[1] != by):
        to = None
    if look.frames and (by in _TAKEN_BACK_BY or by in _TAKEN_BACK_BY.values()):
        module = f"{module} {what} {_TAKEN_BACK_BY.get(by, by)}"
        frame = look.frames[-1]
        offset = frame.steps[frame.index].offset
        if by in _TAKEN_BACK_BY and _is_taken_back(frame.code, offset, by):
            frame.restored.append((module, offset, frame.steps[-1].offset + 1))
    _take(look, (Setting(what, module, to),))


def _constant(value: Value) -> Any:
    """Return what tells one value that is the same for each item from others, None where there is none."""
    if len(value) != 1 or value[0].kind != EXACT:
        return None
    held = value[0].value
    return (type(held), held) if type(held) in inert.SCALARS else (type(held), id(held))


def _called(callee: Value) -> tuple[Any, str]:
    """Return the code that a call is sure to run, and the name of what is called; nothing where it may be several."""
    if len(callee) != 1:
        return None, ""
    ref = callee[0]
    if ref.kind == CODE:
        return ref.value[0], ""
    if ref.kind == METHOD:
        return None, str(ref.name)
    func = ref.value.__func__ if is_of(ref.value, types.MethodType) else ref.value
    if is_of(func, types.FunctionType):
        return func.__code__, func.__name__
    if is_of(func, type):
        return None, name_of(func)
    return None, str(getattr(func, "__name__", "")) if inert.kind_of_class(type(func)) == "callable" else ""


def _take(look: Look, settings: tuple[Setting, ...]) -> None:
    """Note what is set at this place of the running code; with no code running, what each item sets."""
    if look.frames:
        frame = look.frames[-1]
        offset = frame.steps[frame.index].offset
        frame.settings.update({(setting, offset): None for setting in settings})
        return
    for setting in settings:
        if setting.to is None:
            look.changes[setting.what] = None
        else:
            look.unproved.setdefault(setting.what, "it may change what holds for the whole process")


def hand_on(look: Look, code: types.CodeType, settings: tuple[Setting, ...]) -> None:
    """Note what code has set that is called from the running code, perhaps."""
    is_sure = not look.frames or _called(look.frames[-1].callee)[0] is code
    _take(look, settings if is_sure else tuple(setting._replace(to=None) for setting in settings))


def set_by(frame: Frame) -> tuple[Setting, ...]:
    """Return what code sets, whoever calls it: to a value where it does so on every path."""
    left = [
        (setting, offset)
        for setting, offset in frame.settings
        if not any(module == setting.module and start <= offset < end for module, start, end in frame.restored)
    ]
    certain = {setting for setting, offset in left if _is_certain(frame.code, offset)}
    return tuple({setting if setting in certain else setting._replace(to=None): None for setting, _ in left})


# -- where it is set -----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _uncertain(code: types.CodeType) -> tuple[int, ...]:
    """Return the offsets of the instructions that some path through the code leaves out."""
    found: list[int] = []
    beyond, has_returned = -1, False
    caught = [(entry.start, entry.end) for entry in protected(code) if not _only_raises(code, entry.target)]
    for step in steps(code):
        if has_returned or step.offset < beyond or any(start <= step.offset < end for start, end in caught):
            found.append(step.offset)
        beyond = max(beyond, step.target)
        has_returned = has_returned or step.meaning == "return" or dis.opname[step.op] == "RETURN_CONST"
    return tuple(found)


def _is_certain(code: types.CodeType, offset: int) -> bool:
    return not code.co_flags & RUNS_LATER and offset not in _uncertain(code)


def _only_raises(code: types.CodeType, target: int) -> bool:
    """Tell whether what handles an exception is a ``finally`` block, after which it goes on."""
    for step in steps(code):
        if step.offset < target:
            continue
        name = dis.opname[step.op]
        if name == "RERAISE":
            return True
        if name in {"POP_EXCEPT", "CHECK_EXC_MATCH", "CHECK_EG_MATCH", "WITH_EXCEPT_START", "RETURN_CONST"} or (
            step.meaning in {"return", "jump"}
        ):
            return False
    return False


def _is_taken_back(code: types.CodeType, offset: int, by: str) -> bool:
    """Tell whether a variable's value is added by the call at *offset*, and taken away by the ``finally`` after it."""
    here = steps(code)
    calls = [
        (one.offset, one.value, other.value)
        for one, other in itertools.pairwise(here)
        if dis.opname[one.op] in {"LOAD_METHOD", "LOAD_ATTR"} and other.meaning == "fast"
    ]
    added = max((call for call in calls if call[0] < offset), default=(0, "", ""))
    takes = [at for at, name, variable in calls if (name, variable) == (_TAKEN_BACK_BY[by], added[2])]
    if added[1] != by:
        return False
    for entry in protected(code):
        between = [step for step in here if offset < step.offset < entry.start]
        if entry.start <= offset or any(step.meaning != "plain" for step in between):
            continue
        last = next((step.offset for step in here if step.offset > entry.target and step.meaning == "end"), 0)
        handled = [step for step in here if entry.target <= step.offset < last]
        is_straight = _only_raises(code, entry.target) and all(step.target < 0 for step in handled)
        return is_straight and any(entry.target < at < last for at in takes) and min(takes) < entry.target
    return False


def note_restored(frame: Frame) -> None:
    """Note which settings the ``with`` statement that is entered here sets back at its end, if any."""
    before = frame.steps[frame.index - 1 :: -1]
    moved = next((step for step in before if step.meaning not in {"copy", "swap", "special"}), None)
    module = _RESTORING.get(_called(frame.callee)[1], "")
    if not module or moved is None or not moved.meaning.startswith("call"):
        return
    offset = frame.steps[frame.index].offset
    bodies = [entry for entry in protected(frame.code) if entry.start > offset and _leaves(frame.code, entry.target)]
    if bodies:
        body = min(bodies, key=lambda entry: entry.start)
        ends = [one.end for one in bodies if one.target == body.target and one.end <= body.target]
        frame.restored.append((module, body.start, max(ends, default=body.end)))


def _leaves(code: types.CodeType, target: int) -> bool:
    """Tell whether what handles an exception leaves a ``with`` statement."""
    names = [dis.opname[step.op] for step in steps(code) if step.offset >= target][:2]
    return names == ["PUSH_EXC_INFO", "WITH_EXCEPT_START"]
