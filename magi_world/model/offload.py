"""Modules that leave the card while they are idle, and come back for every call.

Their weights lie in the host's page-locked memory, from where a card fetches about 50 GB a second;
nothing is copied back, for weights do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class Rest:
    """Where the weights of a module are between its calls. Calls may be nested."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        """``module`` lies in the host's memory; ``device`` is where it is to run."""
        self.device, self.depth = device, 0
        # Each tensor once, with the places that have it: some tables are shared.
        found: dict[int, tuple[Tensor, list[tuple[dict[str, Any], str]]]] = {}
        for part in module.modules():
            tables: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
            for table in tables:
                for name, tensor in table.items():
                    if tensor is not None:
                        found.setdefault(id(tensor), (tensor, []))[1].append((table, name))
        self.homes = [
            (x.detach().pin_memory(), isinstance(x, nn.Parameter), places)
            for x, places in found.values()
        ]
        self._put(lambda home: home)

    def _put(self, where: Callable[[Tensor], Tensor]) -> None:
        for home, parameter, places in self.homes:
            tensor = where(home)
            tensor = nn.Parameter(tensor, requires_grad=False) if parameter else tensor
            for table, name in places:
                table[name] = tensor

    @contextmanager
    def awake(self) -> Iterator[None]:
        """The weights are on the card within the block."""
        self.wake()
        try:
            yield
        finally:
            self.sleep()

    def wake(self) -> None:
        """Fetch the weights, unless they are here."""
        self.depth += 1
        if self.depth == 1:
            self._put(lambda home: home.to(self.device, non_blocking=True))

    def sleep(self) -> None:
        """Leave the card, once nobody needs them any more."""
        self.depth -= 1
        if self.depth == 0:
            self._put(lambda home: home)


def offload(module: nn.Module, device: torch.device) -> None:
    """Let ``module``, which lies in the host's memory, run on ``device`` and be there only then."""
    rest = Rest(module, device)
    module.rest = rest  # type: ignore[assignment]
    module.register_forward_pre_hook(lambda *given: rest.wake())
    module.register_forward_hook(lambda *given: rest.sleep(), always_call=True)


def awake(module: nn.Module) -> AbstractContextManager[None]:
    """Keep a module on the card for many calls; nothing to do for one that never leaves it."""
    rest = getattr(module, "rest", None)
    return rest.awake() if isinstance(rest, Rest) else nullcontext()
