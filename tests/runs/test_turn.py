"""Of several that would make the same, one does and the others wait."""

import threading

import pytest

from vltune.errors import UserError
from vltune.runs import turn as module
from vltune.runs.turn import turn


def test_who_waits_is_asked_whether_to_go_on(tmp_path, capsys):
    asked = []

    def check():
        asked.append(1)
        raise InterruptedError

    about = tmp_path / "a", check, "pictures", "go elsewhere"
    with turn(*about), pytest.raises(InterruptedError), turn(*about):
        pass
    assert asked == [1]
    assert capsys.readouterr().err == f"{tmp_path / 'a'}: waiting for the process that computes these pictures\n"


def test_who_waits_comes_after(tmp_path):
    order, inside = [], threading.Event()

    def first():
        with turn(tmp_path, lambda: None, "pictures", ""):
            inside.set()
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with turn(tmp_path, lambda: None, "pictures", ""):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("error", [OSError(95, "Operation not supported"), NotImplementedError("no locks here")])
def test_a_file_system_without_locks(error, tmp_path, monkeypatch):
    def acquire(self, timeout):
        raise error

    monkeypatch.setattr(module.FileLock, "acquire", acquire)
    told = pytest.raises(UserError, match=r"cannot be locked \((Operation not supported|no locks here)\): go elsewhere")
    with told, turn(tmp_path, lambda: None, "pictures", "go elsewhere"):
        pass
