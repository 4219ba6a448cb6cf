from __future__ import annotations

import os
import pickle
import platform
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from rlprune.utils.process import ForkLock

ALLOCATING = """
import resource
import torch
from rlprune.utils.process import keep_freed

torch.set_num_threads(1)
keep_freed()
torch.zeros(2**22)  # 16 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators do as they like")
def test_memory_that_is_freed_is_used_again_without_asking_the_system() -> None:
    # In a process of its own: elsewhere, what other tests freed at the heap's top may be returned at any moment.
    run = subprocess.run([sys.executable, "-c", ALLOCATING], capture_output=True, text=True, check=True)
    pages_of_one = 2**12
    assert int(run.stdout) < 2 * pages_of_one


def holding(lock: ForkLock, may_go: threading.Event) -> threading.Thread:
    """A thread that has the lock, until it may go."""
    held = threading.Event()

    def work() -> None:
        with lock:
            held.set()
            may_go.wait()

    thread = threading.Thread(target=work)
    thread.start()
    held.wait()
    return thread


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_lock_that_another_thread_holds_is_waited_for_and_free_in_the_child() -> None:
    lock, may_go = ForkLock(), threading.Event()
    thread = holding(lock, may_go)
    threading.Timer(0.05, may_go.set).start()
    assert child(lambda: may_go.is_set() and lock.wait(0.0)) == 1
    thread.join()
    with lock:  # the thread that forks goes on under it, here and there
        assert child(lambda: lock.wait(0.0)) == 0
    assert lock.wait(0.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.utils.process._PATIENCE", 0.05)
    lock, may_go = ForkLock(), threading.Event()
    thread = holding(lock, may_go)
    assert child(lambda: lock.wait(0.0)) == 1
    may_go.set()
    thread.join()
    assert pickle.loads(pickle.dumps(lock)).wait(0.0)


def child(say: Callable[[], bool]) -> int:
    """What a forked process says, as 0 or 1."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(say())
        finally:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
