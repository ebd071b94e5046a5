"""What the window is told. Light: the command line shows the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from magi_world.config import require


@dataclass(frozen=True)
class PlayConfig:
    """Options of `play`.

    seed: None takes a fresh one.    threads: of the CPU; None measures which number is quickest.
    scene: scene prompt; None is the world's own.
    image: picture to begin with.
    start: number of a start video, "text", or "best", the one that shows the world best.
    script: file of a script that is in charge at first; its seed, scene and start are used.
    record: MP4 to record to from the first frame on.
    session: file of the session; None puts it into ``folder``.    keep_session: write it at all.
    folder: where films, pictures, sessions and slots go.
    scale: whole factor by which the world is enlarged, in the window at first and in films.
    size: (width, height) of the window at first, without ``scale``.    hud: figures at first.
    max_seconds: close the window after so long.
    """

    seed: int | None = 0
    scene: str | None = None
    image: Path | None = None
    start: int | Literal["text", "best"] | None = "best"
    threads: int | None = None
    script: Path | None = None
    record: Path | None = None
    session: Path | None = None
    keep_session: bool = True
    folder: Path = Path("recordings")
    steer: Literal["now", "queue"] = "now"
    scale: int | None = None
    size: tuple[int, int] = (1280, 800)
    max_seconds: float | None = None
    hud: bool = False

    def __post_init__(self) -> None:
        for name in ("seed", "start"):
            value = getattr(self, name)
            require(
                not isinstance(value, int) or value >= 0,
                f"PlayConfig.{name} is {value}; it must be a whole number from 0",
            )
        require(
            self.scale is None or self.scale >= 1,
            f"PlayConfig.scale is {self.scale}; it must be a whole number from 1, or None",
        )
        require(
            len(self.size) == 2 and min(self.size) >= 200,
            f"PlayConfig.size is {self.size}; it must be (width, height), each at least 200",
        )
        require(
            self.record is None or self.record.suffix.lower() == ".mp4",
            f"PlayConfig.record is {self.record}; it must end in .mp4",
        )
        require(
            self.session is None or not self.session.exists(),
            f"PlayConfig.session is {self.session}, which exists; a session is never overwritten",
        )
        require(
            self.max_seconds is None or self.max_seconds > 0,
            f"PlayConfig.max_seconds is {self.max_seconds}; it must be positive, or None",
        )
