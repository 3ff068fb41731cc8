"""A Windows host on a platform that keeps everything in memory."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from windows_bench import Bench, FakePlatform

from rehearsal.windows import images

T = TypeVar("T")


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stock server's disk, to be copied."""
    root = tmp_path_factory.mktemp("stock")
    images.stock_server(root, python=sys.executable)
    return root


@pytest.fixture
def bench(stock: Path, tmp_path: Path) -> Bench:
    """A host of the stock image without power."""
    root = tmp_path / "m"
    shutil.copytree(stock, root)
    return Bench(root, FakePlatform())


@pytest.fixture
def run(bench: Bench) -> Callable[[Callable[[Bench], Coroutine[Any, Any, T]]], T]:
    """Run a coroutine on a host that has power and no EC2Launch, then cut the power."""

    def call(scenario: Callable[[Bench], Coroutine[Any, Any, T]]) -> T:
        async def body() -> T:
            bench.host.files.delete("C:\\Program Files\\Amazon", force=True)
            await bench.host.power_on()
            try:
                return await scenario(bench)
            finally:
                await bench.host.power_off()

        return asyncio.run(body())

    return call
