"""The courtyard as a file that ViZDoom plays: a walled square with two pillars, drawn by code.

One small WAD: a text map (UDMF; the engine makes the nodes itself), textures as PNG, and the script
of the installed ``health_gathering.wad``, so that medkits appear and the floor hurts as there.

Units are the game's: the player's eye is at 41, the square is 1216 wide. North is +y.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 1216.0
CEILING = 160
LIGHT = 230
EMBLEM = 192.0  # width of the sign in the middle of a wall
MEDKIT = 1.75  # how many times as large as the game's own: legible in 64 pixels
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Wall:
    """One side of the square. ``normal`` points outwards."""

    name: str
    colour: Colour
    normal: tuple[int, int]


@dataclass(frozen=True)
class Pillar:
    """A square column that reaches the ceiling."""

    name: str
    colour: Colour
    centre: tuple[float, float]
    half: float


# Clockwise from the north.
WALLS = (
    Wall("red wall", (196, 52, 44), (0, 1)),
    Wall("blue wall", (52, 92, 204), (1, 0)),
    Wall("yellow wall", (228, 190, 52), (0, -1)),
    Wall("green wall", (52, 156, 72), (-1, 0)),
)
PILLARS = (
    Pillar("grey pillar", (128, 128, 132), (360.0, 860.0), 56.0),
    Pillar("white pillar", (240, 240, 240), (860.0, 380.0), 40.0),
)


def bricks(colour: Colour, width: int = 128, height: int = 128, rows: int = 2) -> np.ndarray:
    """Large plain bricks (height, width, 3) uint8, their joints a little darker."""
    picture = np.tile(np.array(colour, np.float64), (height, width, 1))
    tall = height // rows
    for row in range(rows):
        top, joint = row * tall, (row % 2) * width // 2
        picture[top : top + 5] *= 0.78
        picture[top : top + tall, joint : joint + 5] *= 0.78
    return picture.round().astype(np.uint8)


def emblem(wall: Wall) -> np.ndarray:
    """The middle of a wall: its bricks with one plain sign, another one on every wall."""
    width, height = int(EMBLEM), CEILING
    picture = np.concatenate([bricks(wall.colour)] * 2, 1)[:, :width]
    picture = np.concatenate([picture, picture[: height - 128]], 0)
    y, x = np.mgrid[:height, :width]
    dx, up = np.abs(x - width / 2), height - y
    middle = np.hypot(dx, up - 84)
    shapes: dict[str, tuple[np.ndarray, Colour]] = {
        # an arched door, a full moon, a diamond, a broad cross
        "red wall": ((dx < 48) & ((up < 84) | (np.hypot(dx, up - 84) < 48)), (84, 48, 28)),
        "blue wall": (middle < 46, (236, 236, 220)),
        "yellow wall": (dx + np.abs(up - 84) < 60, (120, 60, 140)),
        "green wall": (
            (middle < 66) & ((dx < 16) | (np.abs(up - 84) < 16)),
            (236, 236, 220),
        ),
    }
    mask, colour = shapes[wall.name]
    picture = picture.copy()
    picture[mask] = colour
    return picture


def checker(one: Colour, other: Colour, size: int = 128) -> np.ndarray:
    """A floor tile of four fields (size, size, 3) uint8."""
    y, x = np.mgrid[:size, :size] // (size // 2)
    return np.where(((x + y) % 2)[..., None], np.array(one), np.array(other)).astype(np.uint8)


def sky(version: int, width: int = 256, height: int = 256) -> np.ndarray:
    """A light sky; in version 0 paler towards the horizon, which a bent picture makes arches of."""
    if version:
        return np.full((height, width, 3), (160, 200, 240), np.uint8)
    down = np.clip(np.arange(height) / height * 1.2, 0, 1)[:, None, None]
    high, low = np.array([96.0, 160.0, 232.0]), np.array([200.0, 226.0, 244.0])
    return np.broadcast_to(
        (high + (low - high) * down).round().astype(np.uint8), (height, width, 3)
    )


def textures(version: int = 1) -> dict[str, np.ndarray]:
    """Wall textures by name."""
    made = {"CYSKY": sky(version)}
    for i, wall in enumerate(WALLS):
        made[f"CYWALL{i}"], made[f"CYSIGN{i}"] = bricks(wall.colour), emblem(wall)
    for i, pillar in enumerate(PILLARS):
        plain = np.tile(np.array(pillar.colour, np.uint8), (128, 64, 1))
        made[f"CYPILL{i}"] = plain if "white" in pillar.name else bricks(pillar.colour, 64)
    return made


def flats(version: int = 1) -> dict[str, np.ndarray]:
    """Floor textures by name."""
    # Of four fields; the engine wants a power of two.
    size = 128 if version == 0 else 256
    return {"CYFLOOR": checker((150, 116, 84), (126, 96, 70), size)}


def _block(kind: str, **values: object) -> str:
    rows = (f"{k} = {_udmf(v)};" for k, v in values.items())
    return kind + "\n{\n" + "\n".join(rows) + "\n}\n"


def _udmf(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def text_map() -> str:
    """The map in UDMF: one sector, its outer walls in three parts each, the pillars as holes."""
    parts = ['namespace = "zdoom";\n']
    flags = {f"skill{i}": True for i in range(1, 6)} | {f"class{i}": True for i in range(1, 4)}
    parts.append(
        _block("thing", id=1, x=608.0, y=608.0, angle=0, type=1, single=True, **flags)  # start
    )
    vertices: list[tuple[float, float]] = []
    lines: list[str] = []
    sides: list[str] = []

    def ring(points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
        """Walls along ``points``, the room on their right hand."""
        first = len(vertices)
        vertices.extend(points)
        for i, name in enumerate(names):
            after = first + (i + 1) % len(points)
            lines.append(
                _block("linedef", v1=first + i, v2=after, sidefront=len(sides), blocking=True)
            )
            sides.append(_block("sidedef", sector=0, texturemiddle=name))

    low, high = (SIZE - EMBLEM) / 2, (SIZE + EMBLEM) / 2
    ring(
        [
            *[(x, SIZE) for x in (0.0, low, high)],
            *[(SIZE, y) for y in (SIZE, high, low)],
            *[(x, 0.0) for x in (SIZE, high, low)],
            *[(0.0, y) for y in (0.0, low, high)],
        ],
        [name.format(i) for i in range(4) for name in ("CYWALL{}", "CYSIGN{}", "CYWALL{}")],
    )
    for i, pillar in enumerate(PILLARS):
        (x, y), h = pillar.centre, pillar.half
        corners = [(x - h, y - h), (x + h, y - h), (x + h, y + h), (x - h, y + h)]
        ring(corners, [f"CYPILL{i}"] * 4)
    parts += [_block("vertex", x=x, y=y) for x, y in vertices]
    parts += lines + sides
    parts.append(
        _block(
            "sector",
            heightfloor=0,
            heightceiling=CEILING,
            texturefloor="CYFLOOR",
            textureceiling="F_SKY1",
            lightlevel=LIGHT,
            special=83,  # the floor hurts, as in health_gathering
        )
    )
    return "\n".join(parts)


def _png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def read_wad(path: Path) -> list[tuple[str, bytes]]:
    """Names and contents of a WAD's lumps, in order.

    Raises:
        ValueError: not a WAD.
    """
    data = path.read_bytes()
    if data[:4] not in (b"PWAD", b"IWAD"):
        raise ValueError(f"{path} is not a WAD file")
    count, table = struct.unpack("<ii", data[4:12])
    lumps = []
    for i in range(count):
        at, size, name = struct.unpack("<ii8s", data[table + 16 * i : table + 16 * (i + 1)])
        lumps.append((name.rstrip(b"\0").decode("ascii"), data[at : at + size]))
    return lumps


def wad_bytes(lumps: Sequence[tuple[str, bytes]]) -> bytes:
    """A PWAD with these lumps."""
    body, table, at = b"", b"", 12
    for name, data in lumps:
        table += struct.pack("<ii8s", at, len(data), name.encode("ascii"))
        body += data
        at += len(data)
    return struct.pack("<4sii", b"PWAD", len(lumps), at) + body + table


def actors(strength: int) -> list[tuple[str, bytes]]:
    """Lumps that put a stronger player and larger medkits into the game.

    Args:
        strength: how many times as strongly the player may push as the game's own.
    """
    moves = "".join(f"Player.{way}Move {strength}, {strength} " for way in ("Forward", "Side"))
    made = (
        f"actor Walker : DoomPlayer {{ {moves}}}\n"
        f"actor LargeMedikit : Medikit replaces Medikit {{ Scale {MEDKIT} }}\n"
    )
    return [
        ("DECORATE", made.encode()),
        ("KEYCONF", b"clearplayerclasses\naddplayerclass Walker\n"),
    ]


def courtyard_wad(script: Path, strength: int, version: int = 1) -> bytes:
    """The whole file.

    Args:
        script: the installed health_gathering.wad, whose script it takes.
        strength: how many times as strongly the player may push as the game's own.
        version: 0 leaves player and medkits as they are, and has a finer floor.
    """
    theirs = dict(read_wad(script))  # of two lumps of one name the later one counts
    info = 'map MAP01 "Courtyard"\n{\n  sky1 = "CYSKY"\n}\n'
    lumps = [
        ("ZMAPINFO", info.encode()),
        *(actors(strength) if version else []),
        ("MAP01", b""),
        ("TEXTMAP", text_map().encode()),
        ("BEHAVIOR", theirs["BEHAVIOR"]),
        ("ENDMAP", b""),
        ("TX_START", b""),
        *[(name, _png(picture)) for name, picture in textures(version).items()],
        ("TX_END", b""),
        ("FF_START", b""),
        *[(name, _png(picture)) for name, picture in flats(version).items()],
        ("FF_END", b""),
    ]
    return wad_bytes(lumps)
