"""What this machine can do, and what is in the way: the findings of `magi-world doctor`."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["ok", "note", "problem"]
# Drivers of SDL that show nothing to anybody.
_BLIND = ("dummy", "offscreen")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    verdict: "note" is for what is missing but not needed.
    advice: what to do about it.
    """

    name: str
    verdict: Verdict
    text: str
    advice: str = ""


def findings(weights: Path | None = None) -> Iterator[Finding]:
    """Look at everything, the quick things first; ``weights`` is a folder of released weights."""
    yield _python()
    yield _torch()
    yield from _devices()
    yield _attention()
    yield _codecs()
    yield display()
    yield from _worlds()
    if weights is not None:
        yield from _weights(weights)


def _python() -> Finding:
    version = platform.python_version()
    text = f"{version}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Finding("python", "ok", text)


def _torch() -> Finding:
    import torch

    text = f"{torch.__version__}, {torch.get_num_threads()} threads"
    release = tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2])
    if release < (2, 9):
        return Finding("torch", "problem", text, "pip install --upgrade torch; 2.9 or newer")
    return Finding("torch", "ok", text)


def _devices() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "this torch is built without CUDA" if built is None else "none that torch can use"
        yield Finding("gpu", "note", why, "shipped worlds run on the CPU; the released ones do not")
        return
    for i in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(i)
        size = f"{facts.total_memory / 2**30:.0f} GiB, compute {facts.major}.{facts.minor}"
        yield Finding("gpu", "ok", f"{facts.name}, {size}, CUDA {torch.version.cuda}")


def _attention() -> Finding:
    import torch

    from magi_world.model.attention import FLASH, Setting, choice, installed, obstacle

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # As the released weights have it: bfloat16, heads of 128 numbers.
    setting = Setting.of(device, torch.bfloat16, 128)
    taken, why = choice(setting)
    lines = [f"auto takes {taken} for the released weights here: {why}"]
    lines += [
        f"{name} ({module}): {obstacle(name, setting) or 'can be used'}"
        for name in (*FLASH, "magi")
        if (module := installed(name))
    ]
    return Finding("attention", "ok", "\n".join(lines))


def _codecs() -> Finding:
    import av

    names = ("libx264", "libopenh264", "mpeg4")
    usable = [name for name in names if _can_encode(name)]
    text = f"PyAV {av.__version__}: {', '.join(usable) or 'none'}"
    if not usable:
        return Finding("video", "problem", text, "pip install --force-reinstall av")
    if usable[0] != "libx264":
        return Finding("video", "note", text, "files will be larger; the wheels of av have libx264")
    return Finding("video", "ok", text)


def _can_encode(name: str) -> bool:
    import av

    try:
        av.Codec(name, "w")
    except ValueError:
        return False
    return True


def find_display() -> tuple[str, str]:
    """What a window would be shown by, and why none can be opened; "" if one can."""
    with redirect_stdout(None):  # it greets
        import pygame

    if pygame.display.get_init():
        return f"{pygame.display.get_driver()}, in use", ""
    try:
        with quiet_stderr():
            pygame.display.init()
        driver = pygame.display.get_driver()
    except pygame.error as error:
        return "none", str(error)
    finally:
        pygame.display.quit()
    # Without any display SDL quietly draws into memory, unless it was told to.
    blind = driver in _BLIND and driver != os.environ.get("SDL_VIDEODRIVER")
    return driver, f"SDL found only its {driver!r} driver" if blind else ""


def display() -> Finding:
    driver, reason = find_display()
    if not reason:
        return Finding("display", "ok", driver)
    advice = "without one, `magi-world record` makes films and `render_mode='rgb_array'` pictures"
    return Finding("display", "note", f"none ({reason})", advice)


def _worlds() -> Iterator[Finding]:
    from magi_world.loading import world_folders

    folders = world_folders()
    if not folders:
        yield Finding("worlds", "problem", "none is installed", "reinstall magi-world")
    for name, folder in folders.items():
        yield _world(name, folder)


def _world(name: str, folder: Path) -> Finding:
    from magi_world.io.package import check_package
    from magi_world.loading import load_world

    label = f"world {name}"
    try:
        problems = check_package(folder)
        if problems:
            return Finding(label, "problem", "; ".join(problems), f"replace {folder}")
        begin = time.perf_counter()
        world = load_world(folder)
        world.reset(seed=0)
        loaded = time.perf_counter()
        world.step()
        end = time.perf_counter()
    except (ValueError, OSError, KeyError) as error:
        return Finding(label, "problem", str(error), f"replace {folder}")
    device = world.device.type
    times = f"loads in {loaded - begin:.1f} s, first chunk in {end - loaded:.2f} s on {device}"
    return Finding(label, "ok", times)


def _weights(folder: Path) -> Iterator[Finding]:
    from magi_world.doctor import report_weights

    try:
        report = report_weights(folder)
    except (ValueError, OSError) as error:
        yield Finding("weights", "problem", str(error))
        return
    verdict: Verdict = "problem" if report.problems else "ok"
    yield Finding("weights", verdict, "\n".join(report.lines()))


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """What C libraries write to standard error meanwhile is lost; errors come as exceptions.

    SDL looks for a display in several places, and the libraries of those it does not find say so.
    """
    try:
        sys.stderr.flush()
        kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except (OSError, AttributeError):
        yield  # there is no standard error to be silenced
        return
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
