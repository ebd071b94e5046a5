"""`magi-world doctor` and `bench`: this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from textwrap import indent

from tyro.conf import Positional

from magi_world.demos.commands.options import (
    Count,
    JsonOption,
    Opt,
    OptFile,
    WorldOptions,
    default_world,
    option,
    print_json,
    required,
)

_MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


@dataclass(frozen=True, kw_only=True)
class Doctor(JsonOption):
    """Check this machine, the worlds, and downloaded weights.

    Looks at Python, torch, GPU, attention, video codecs, display and worlds. Exit status 1 if there
    is a problem.
    """

    weights: OptFile = option("folder of the released MAGI-1 weights, to be checked too")

    def run(self) -> int:
        from magi_world.demos.doctor import findings

        found = []
        for finding in findings(self.weights):
            found.append(finding)
            if self.json:
                continue
            first, *rest = finding.text.splitlines()
            print(f"{_MARKS[finding.verdict]} {finding.name}: {first}", flush=True)
            for line in (*rest, *filter(None, [finding.advice])):
                print(f"        {line}")
        problems = sum(finding.verdict == "problem" for finding in found)
        if self.json:
            print_json({"problems": problems, "findings": [asdict(f) for f in found]})
        elif problems:
            print(f"{problems} problem{'s' if problems > 1 else ''}")
        else:
            print("all is well")
        return 1 if problems else 0


@dataclass(frozen=True, kw_only=True)
class Bench(JsonOption):
    """Measure how fast a world runs here.

    Generated frames a second, and the delay from a command to its picture.
    """

    world: Positional[Opt[str]] = option("by default the shipped one")
    chunks: Count = option("to measure", 40)
    num_worlds: Count = option("in the batch", 1)
    loading: WorldOptions = required("How a world is loaded.")

    def run(self) -> int:
        from tabulate import tabulate
        from tqdm import tqdm

        from magi_world.demos.bench import measure

        world = self.loading.open_world(self.world or default_world(), self.num_worlds)
        bar = tqdm(total=self.chunks, unit="chunk", disable=self.json, file=sys.stderr, leave=False)
        with bar:
            made = measure(world, self.chunks, bar.update)
        if self.json:
            print_json(asdict(made))
            return 0
        height, width = made.frame_size
        print(f"{made.world}, {height}x{width}, {made.num_steps} steps, window {made.window_size}")
        print(f"  on {made.device}, {made.threads} threads, {made.num_worlds} at once")
        rows = {
            "generated": f"{made.generated_fps:.1f} frames/s; {made.shown_fps:g} are shown "
            f"({made.realtime:.2f} x real time for each)",
            "a chunk": f"{made.chunk_ms_p50:.0f} ms (p95 {made.chunk_ms_p95:.0f}): "
            f"{made.denoise_ms_p50:.0f} to denoise, {made.decode_ms_p50:.0f} to decode",
            "memory": f"{made.memory_mib} MiB at most",
        }
        print(indent(tabulate(rows.items(), tablefmt="plain"), "  "))
        return 0
