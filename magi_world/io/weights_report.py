"""A report on released weights, as data and as text; :mod:`magi_world.doctor` fills it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PartReport:
    """One part of a checkpoint.

    part: "transformer", "vae", "t5" or "special_tokens".    name: the preset, or what it is.
    tensors, parameters: counts over all that is stored.
    disk_bytes: size of its files.
    memory_bytes: precision -> bytes of the weights once loaded in it.
    cache_bytes: precision -> bytes of the key/value cache (transformers of a known preset).
    problems: what keeps it from being loaded; empty if nothing does.
    """

    part: str
    name: str
    path: str
    tensors: int
    parameters: int
    disk_bytes: int
    memory_bytes: dict[str, int]
    cache_bytes: dict[str, int]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class WeightsReport:
    """What :func:`magi_world.doctor.report_weights` found.

    missing: what was looked for and is not there.
    frame_sizes, window_sizes: preset -> (height, width), chunks in flight that its cache is for.
    """

    root: str
    parts: tuple[PartReport, ...]
    missing: tuple[str, ...]
    frame_sizes: dict[str, tuple[int, int]]
    window_sizes: dict[str, int]

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong or missing."""
        return tuple(p for part in self.parts for p in part.problems) + self.missing

    def memory(self, preset: str, dtype: str = "bfloat16", t5: bool = True) -> int:
        """Bytes that a preset needs: weights of all parts and cache; activations come on top.

        Args:
            preset: name of a transformer in the report.
            dtype: "bfloat16" or "float32".
            t5: whether T5 is loaded too, rather than captions saved beforehand.
        """
        wanted = {"vae"} | ({"t5"} if t5 else set())
        parts = [p for p in self.parts if p.part in wanted]
        parts += [p for p in self.parts if p.part == "transformer" and p.name == preset][:1]
        return sum(p.memory_bytes.get(dtype, 0) + p.cache_bytes.get(dtype, 0) for p in parts)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {**asdict(self), "problems": list(self.problems)}

    def lines(self) -> list[str]:
        """The report as text, for a terminal."""
        out = [f"weights in {self.root}"]
        for part in self.parts:
            out.append(f"{part.part}: {part.name}, {part.path}")
            if part.tensors:
                out.append(
                    f"    {part.tensors:,} tensors, {part.parameters:,} numbers, "
                    f"{_size(part.disk_bytes)} on disk"
                )
            if part.memory_bytes:
                out.append(f"    in memory: {_sizes(part.memory_bytes)}")
            if part.cache_bytes:
                height, width = self.frame_sizes[part.name]
                out.append(
                    f"    key/value cache for {height}x{width} (height x width), window "
                    f"{self.window_sizes[part.name]}: {_sizes(part.cache_bytes)}"
                )
            out += [f"    PROBLEM: {problem}" for problem in part.problems]
        out += [f"missing: {missing}" for missing in self.missing]
        kinds = {part.part for part in self.parts}
        for part in self.parts:
            if not part.cache_bytes or part.problems:
                continue
            need = f"{part.name} in bfloat16 needs {_size(self.memory(part.name, t5=False))}"
            if "t5" in kinds:
                need += f" of memory, {_size(self.memory(part.name))} with T5 beside it"
            uncounted = "" if "vae" in kinds else "the missing VAE and "
            out.append(f"{need}; {uncounted}activations come on top")
        return out


def _size(count: int) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024  # type: ignore[assignment]
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{_size(size)} as {key}" for key, size in sizes.items())
