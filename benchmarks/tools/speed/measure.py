"""Measurements of a workload: its seconds, its matrix products, and its memory. It needs torch alone: see ``worker``."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Product(NamedTuple):
    """A matrix product: the operator, and size and stride of each of its tensors."""

    operator: Any
    layouts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    dtype: torch.dtype


class ProductLog(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the matrix products that run below it, and their floating-point operations."""

    _operators = (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.baddbmm)

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[Product] = Counter()
        self.flops: dict[Product, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and note it if it is a matrix product."""
        out = func(*args, **(kwargs or {}))
        operator = func.overloadpacket
        if operator in self._operators:
            tensors = [a for a in args if isinstance(a, Tensor)]
            product = Product(operator, tuple((tuple(t.shape), t.stride()) for t in tensors), tensors[0].dtype)
            self.calls[product] += 1
            self.flops[product] = flop_registry[operator](*args, **(kwargs or {}), out_val=out)
        return out


def product_seconds(log: ProductLog, share: float = 0.999, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that the logged products take when they run alone, 0 without any; the last 0.1 % at the others' rate."""
    work = sorted(((log.calls[p] * log.flops[p], p) for p in log.calls), key=lambda item: -item[0])
    total, measured, seconds = sum(flops for flops, _ in work), 0, 0.0
    with torch.no_grad():
        for flops, product in work:
            tensors = [_laid_out(*layout, product.dtype) for layout in product.layouts]
            calls = max(1, min(log.calls[product], 20))

            def play(operator: Any = product.operator, tensors: list[Tensor] = tensors, calls: int = calls) -> None:
                for _ in range(calls):
                    operator(*tensors)

            seconds += log.calls[product] * median_time(play, 0.05, clock) / calls
            measured += flops
            if measured >= share * total:
                break
    return seconds * total / measured if measured else 0.0


def _laid_out(size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random numbers in that layout; rows may share memory, as weights that are repeated for every task do."""
    last = sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(last + 1, generator=generator, dtype=dtype, device="cpu").as_strided(size, stride)


def median_time(play: Callable[[], None], seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median seconds of a call by a clock, over at least 3 calls and at least ``seconds`` in all, after one for warm-up."""
    play()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = clock()
        play()
        times.append(clock() - start)
    return statistics.median(times)


def peak_memory() -> float:
    """The process's largest resident memory so far, MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
