"""The process's use of the machine: threads, and memory that is freed and allocated again at every step."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def configure(threads: int) -> None:
    """Set torch's threads, and keep freed memory: for a process that does nothing else; ``configured`` is for all others.

    Large tensors live for one operation; by default glibc returns each to the system, which hands it back page by page,
    for a tenth of a meta-iteration's time. Elsewhere than on glibc only the threads are set.
    glibc's settings cannot be read, and so not be put back: the process keeps more freed memory from then on. No number depends
    on it.
    """
    torch.set_num_threads(threads)
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, 32 << 20)
            mallopt(_TRIM_THRESHOLD, 1 << 30)
            mallopt(_TOP_PAD, 256 << 20)


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def configured(threads: int) -> Iterator[None]:
    """Use so many of torch's threads inside; see ``configure``."""
    before = torch.get_num_threads()
    configure(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def torch_defaults() -> Iterator[None]:
    """Use torch's own defaults inside, float32 on the CPU: for other libraries' code, which makes its tensors by them."""
    dtype = torch.get_default_dtype()
    moved = torch.get_default_device().type != "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu") if moved else contextlib.nullcontext():
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread inside: for many small operations, distributing the work takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
