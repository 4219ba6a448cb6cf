from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlprune.errors import InUseError
from rlprune.utils.locks import hold

HOLDER = """
import sys, time
from pathlib import Path
from rlprune.utils.locks import hold
with hold(Path(sys.argv[1]), inside=sys.argv[2] == "inside"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("inside", [False, True])
def test_a_second_process_is_refused_by_name_and_a_dead_one_holds_nothing(tmp_path: Path, inside: bool) -> None:
    out = tmp_path / "some" / "out"
    command = [sys.executable, "-c", HOLDER, str(out), "inside" if inside else "beside"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        message = rf"out is in use by process {other.pid} on {socket.gethostname()}; let that end, or name another one"
        with pytest.raises(InUseError, match=message), hold(out, inside=inside):
            pass
        other.send_signal(signal.SIGKILL)
    with hold(out, inside=inside):
        (owner,) = out.parent.rglob("*.owner.json")
        assert json.loads(owner.read_text())["process"] == os.getpid()
    assert not [path for path in out.parent.rglob("*") if path.is_file()]


def test_the_thread_that_holds_it_may_hold_it_again_and_no_other(tmp_path: Path) -> None:
    said: list[str] = []

    def elsewhere() -> None:
        try:
            with hold(tmp_path / "out"):
                said.append("held")
        except InUseError as error:
            said.append(str(error))

    def try_elsewhere() -> None:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    with hold(tmp_path / "out"):
        with hold(tmp_path / "out"), hold(tmp_path / "another"):
            pass
        try_elsewhere()
    try_elsewhere()
    with hold(tmp_path / "empty", inside=True):
        assert (tmp_path / "empty").is_dir()
    assert not (tmp_path / "empty").exists()
    assert f"in use by process {os.getpid()}" in said[0] and said[1] == "held"
