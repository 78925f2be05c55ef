"""What editors offer on a decorated function: asked of real language servers, over their standard streams."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import sysconfig
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Seconds that one answer may take: far more than any needs, so that only a hang meets it.
PATIENCE_S = 60

OFFERED = {
    "aimap",
    "amap",
    "explain",
    "imap",
    "istarmap",
    "last_plan",
    "map",
    "plan",
    "profile",
    "starmap",
    "with_options",
}

DOCUMENT = '''
import amorsize

@amorsize.parallel
def bare(path: str, width: int = 100, *, keep: bool = True) -> bytes:
    """Make a picture smaller."""
    return b""

@amorsize.parallel(n_jobs=2)
def called(path: str, width: int = 100, *, keep: bool = True) -> bytes:
    """Make a picture smaller."""
    return b""

@amorsize.parallel(errors="return")
def returning(path: str, width: int = 100, *, keep: bool = True) -> bytes:
    """Make a picture smaller."""
    return b""

class Album:
    @amorsize.parallel
    def method(self, path: str, width: int = 100, *, keep: bool = True) -> bytes:
        """Make a picture smaller."""
        return b""

'''
EXPRESSIONS = ["bare", "called", "returning", "Album().method"]


class Server:
    """A language server at the other end of a pipe, and a folder of documents to ask it about."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.folder = folder
        self.n_asked = 0
        self.n_documents = 0
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PATH": path},
        )
        # Read in a thread, so that every wait has an end.
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._listen, daemon=True)
        self.reader.start()
        self.ask(
            "initialize",
            processId=os.getpid(),
            rootUri=folder.as_uri(),
            workspaceFolders=[{"uri": folder.as_uri(), "name": "here"}],
            capabilities={"workspace": {"configuration": True}},
            initializationOptions={"workspace": {"environmentPath": sys.executable}, "diagnostics": {"enable": False}},
        )
        self._send(method="initialized", params={})

    def _listen(self) -> None:
        """Put each message of the server into the queue, None at the end."""
        out: Any = self.process.stdout
        size = 0
        while line := out.readline():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
            elif not line.strip():
                self.heard.put(json.loads(out.read(size)))
        self.heard.put(None)

    def _send(self, **message: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        pipe: Any = self.process.stdin
        pipe.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        pipe.flush()

    def ask(self, method: str, **params: Any) -> Any:
        """Return the answer to a request; what the server asks meanwhile is answered."""
        self.n_asked += 1
        self._send(id=self.n_asked, method=method, params=params)
        while (message := self.heard.get(timeout=PATIENCE_S)) is not None:
            if "method" not in message and message["id"] == self.n_asked:
                assert "error" not in message
                return message["result"]
            if "method" in message and "id" in message:
                # Configuration is asked for by section; the only thing to say is which Python this is.
                sections = (message.get("params") or {}).get("items", [])
                self._send(id=message["id"], result=[{"pythonPath": sys.executable} for _ in sections] or None)
        raise AssertionError("the server ended without an answer")

    def ask_at(self, method: str, line: str, back: int = 0) -> Any:
        """Ask about the end of *line*, or *back* letters before it, in a new document that ends with it."""
        self.n_documents += 1
        text = DOCUMENT + line
        uri = (self.folder / f"document_{self.n_documents}.py").as_uri()
        document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
        self._send(method="textDocument/didOpen", params={"textDocument": document})
        position = {"line": text.count("\n"), "character": len(line) - back}
        return self.ask(f"textDocument/{method}", textDocument={"uri": uri}, position=position)

    def end(self) -> None:
        """End the server, by force if it does not listen."""
        try:
            self.ask("shutdown")
            self._send(method="exit")
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.reader.join(PATIENCE_S)
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe:
                    pipe.close()


def start(folder: Path, name: str, *arguments: str) -> Iterator[Server]:
    """Start the server that is installed beside this Python; end it when the tests are done."""
    program = shutil.which(name, path=sysconfig.get_path("scripts"))
    if program is None:
        pytest.skip(f"{name} is not installed")
    server = Server([program, *arguments], folder)
    yield server
    server.end()


@pytest.fixture(name="jedi", scope="module")
def _jedi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from start(tmp_path_factory.mktemp("jedi"), "jedi-language-server")


@pytest.fixture(name="pyright", scope="module")
def _pyright(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from start(tmp_path_factory.mktemp("pyright"), "pyright-langserver", "--stdio")


def completions(server: Server, line: str) -> set[str]:
    """Return the public names that are offered at the end of a line."""
    answer = server.ask_at("completion", line)
    entries = answer["items"] if isinstance(answer, dict) else answer
    return {entry["label"] for entry in entries if not entry["label"].startswith("_")}


def signatures(server: Server, line: str) -> list[str]:
    """Return the signatures that are shown at the end of a line."""
    return [each["label"] for each in server.ask_at("signatureHelp", line)["signatures"]]


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize("kind", ["jedi", "pyright"])
def test_the_methods_are_offered(request: pytest.FixtureRequest, kind: str, name: str) -> None:
    """After the dot come the methods and records, however the decorator was written, and nothing else."""
    assert completions(request.getfixturevalue(kind), f"{name}.") == OFFERED


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize("kind", ["jedi", "pyright"])
def test_the_docstring_is_shown(request: pytest.FixtureRequest, kind: str, name: str) -> None:
    """Pointing at the function shows what it says of itself, not what the decorator says."""
    hover = request.getfixturevalue(kind).ask_at("hover", name, back=1)
    assert "Make a picture smaller." in str(hover["contents"])


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_call_shows_the_signature_of_the_function(pyright: Server, name: str) -> None:
    """Unchanged, without self where it is bound; asked of pyright only, since Jedi does not follow a ParamSpec."""
    assert signatures(pyright, f"{name}(") == ["(path: str, width: int = 100, *, keep: bool = True) -> bytes"]


def test_a_map_shows_its_result_type(pyright: Server) -> None:
    """A list of what the function returns; of exceptions too where they are returned."""
    bare = signatures(pyright, "bare.map(")[0]
    assert bare.startswith("(items: Iterable[str], /, *, kwargs: Mapping[str, Any] | None = ..., n_jobs: int | None")
    assert bare.endswith("-> list[bytes]")
    returning = signatures(pyright, "returning.map(")[0]
    assert returning.endswith("-> list[bytes | Exception]")


CALLS = [
    "amorsize.parallel(",
    "amorsize.configure(",
    "amorsize.map(bare, [], ",
    "bare.map([], ",
    "called.imap([], ",
    "bare.starmap([], ",
    "bare.istarmap([], ",
    "bare.plan([], ",
    "Album().method.map([], ",
    "bare.with_options(",
]


@pytest.mark.parametrize("call", CALLS)
def test_the_options_are_offered(pyright: Server, call: str) -> None:
    """Wherever options can be given, their names are completed."""
    assert "n_jobs=" in completions(pyright, f"{call}n_")
    assert "timeout=" in completions(pyright, f"{call}time")


def test_a_stream_can_be_closed(pyright: Server) -> None:
    """What imap returns has close, as a file has."""
    assert "close" in completions(pyright, "bare.imap([]).")


@pytest.mark.parametrize("call", CALLS)
def test_notebooks_offer_the_options(call: str, tmp_path: Path) -> None:
    """IPython completes the names of the options, as it is set up by default."""
    shells = pytest.importorskip("IPython.core.interactiveshell")
    # Its history would be the user's, and the thread that writes it would forbid forking to every test after this one.
    config = pytest.importorskip("traitlets.config").Config({"HistoryManager": {"enabled": False}})
    threads = set(threading.enumerate())
    shell = shells.InteractiveShell(config=config, ipython_dir=str(tmp_path))
    assert set(threading.enumerate()) == threads
    completer = pytest.importorskip("IPython.core.completer")
    assert shell.run_cell(DOCUMENT, silent=True).success
    line = f"{call}n_"
    with completer.provisionalcompleter():
        assert "n_jobs=" in {each.text for each in shell.Completer.completions(line, len(line))}


@pytest.mark.parametrize("kind", ["jedi", "pyright"])
def test_a_plan_completes_too(request: pytest.FixtureRequest, kind: str) -> None:
    """The record leads on to its fields and its words."""
    offered = completions(request.getfixturevalue(kind), "bare.plan([]).")
    assert {"n_jobs", "chunksize", "explain", "plot", "predicted_s", "reason"} <= offered
