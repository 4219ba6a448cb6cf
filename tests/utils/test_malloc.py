from __future__ import annotations

import platform
import resource

import pytest
import torch

from rlprune.utils.malloc import keep_freed


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators do as they like")
def test_memory_that_is_freed_is_used_again_without_asking_the_system() -> None:
    keep_freed()
    torch.zeros(2**22)  # 16 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(2**22)
    pages_of_one = 2**12
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2 * pages_of_one
