from __future__ import annotations

import importlib
import sys
import threading
import types
from typing import TYPE_CHECKING

from amorsize._modules import loaded

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_module_that_another_thread_is_importing_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads called map at once: one was importing multiprocessing while another asked it for its process."""
    gates = types.ModuleType("gates")
    entered, leave = threading.Event(), threading.Event()
    monkeypatch.setattr(gates, "entered", entered, raising=False)
    monkeypatch.setattr(gates, "leave", leave, raising=False)
    monkeypatch.setitem(sys.modules, "gates", gates)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half_imported.py").write_text("import gates\ngates.entered.set()\ngates.leave.wait(30)\nvalue = 1\n")
    thread = threading.Thread(target=importlib.import_module, args=("half_imported",))
    thread.start()
    try:
        assert entered.wait(30)
        assert "half_imported" in sys.modules
        assert loaded("half_imported") is None
    finally:
        leave.set()
        thread.join()
    assert loaded("half_imported").value == 1
    monkeypatch.delitem(sys.modules, "half_imported")


def test_what_nobody_imported_is_not_there() -> None:
    """Nor does asking import it."""
    assert loaded("no_such_module") is None
    assert "no_such_module" not in sys.modules
