"""`tests/load.py` in small."""

from __future__ import annotations

import gc
import linecache
import os
from pathlib import Path

import pytest
import torch
from loads import Bar, Work, controller_in_threads, forks, in_threads, reload, workers
from ranged import DATA, DYNAMIC
from torch.fx import graph_module

from rlprune.storage.bundle import load, save_bundle

BUDGETS = (0.3, 0.6)
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("load") / "bundle"
    save_bundle(folder, DYNAMIC.elastic, DYNAMIC.source_policy, DATA)
    return folder


def holds(bar: Bar) -> None:
    assert not bar.n_faults, bar


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_threads_get_what_they_get_alone(memory: float, folder: Path) -> None:
    holds(in_threads("threads", Work(load(folder, memory=memory), DATA.images, BUDGETS), 8, 12))


def test_threads_share_a_controller() -> None:
    holds(controller_in_threads("threads", DYNAMIC, DATA.images, 0.45, 8, 20))


@can_fork
@pytest.mark.parametrize("memory", [2.0, 0.0])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_no_child_hangs_that_is_forked_while_threads_predict(memory: float, n_threads: int, folder: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        holds(forks("forks", Work(load(folder, memory=memory), DATA.images, BUDGETS), 6))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("method", [pytest.param("fork", marks=can_fork), "spawn"])
def test_workers_are_given_the_network(method: str, folder: Path) -> None:
    holds(workers("workers", Work(load(folder), DATA.images, BUDGETS), method, 1, 10))


def test_a_reload_keeps_no_source_of_what_was_loaded(folder: Path) -> None:
    again = reload(folder, DATA.images)
    again(0)
    before = kept()
    for n in range(3):
        again(n)
    assert kept() == before


def kept() -> tuple[int, int]:
    gc.collect()
    return len(linecache.cache), len(graph_module._loader.eval_cache)
