"""README and docs: every block of code runs, every command parses, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from PIL import Image

import magi_world
from magi_world import loading
from magi_world.demos import cli
from magi_world.demos.commands.record import Record, find_script
from magi_world.demos.commands.worlds import EvalWorld, NewWorld, TrainWorld
from magi_world.io.package import write_package
from magi_world.model.heads import Heads, HeadsConfig
from magi_world.model.text import TextEncoder
from magi_world.session.script import read_script
from magi_world.session.session import read_session
from magi_world.world.parts import WorldParts
from tests.tiny import tiny_parts, tiny_text

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"(?P<mark><!-- needs \w+ -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
LARGEST_PICTURE = 3_000_000
SIZE = (64, 64)
# How an import error names the packages of extras.
OPTIONAL = ("Stable-Baselines3", "stable_baselines3", "torchrl", "minari", "open_clip", "vizdoom")


@dataclass(frozen=True)
class Block:
    """line: of its first line in the page.    needs: "weights", "gpu", ... or nothing."""

    kind: str
    text: str
    line: int
    needs: str


def blocks(page: Path, kind: str) -> list[Block]:
    text = page.read_text("utf-8")
    found = []
    for match in BLOCK.finditer(text):
        line = text[: match.start("text")].count("\n") + 1
        needs = (match["mark"] or "").removeprefix("<!-- needs ").partition(" ")[0]
        found.append(Block(match["kind"], match["text"], line, needs))
    return [block for block in found if block.kind == kind]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where a tiny world, with heads, has the shipped one's name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "SHIPPED", tmp_path / "worlds")
    folder = tmp_path / "worlds" / "courtyard"
    write_package(folder, square_parts(tiny_text(folder / "text")), torch.float32)
    return tmp_path


def square_parts(text: TextEncoder) -> WorldParts:
    """The tiny world with the shipped one's frame size, and heads."""
    tiny = tiny_parts()
    torch.manual_seed(3)
    form = HeadsConfig(8, 2, (8, 8), ("medkit", "death"), (1.0, -1.0), end="death", width=8)
    heads = Heads(form).requires_grad_(False)
    heads.fc2.bias.data[1] = -20  # nobody dies within a page
    return replace(
        tiny,
        text=text,
        spec=replace(tiny.spec, frame_size=SIZE),
        config=replace(tiny.config, frame_size=SIZE),
        starts=torch.randn(3, 8, 4, 8, 8),
        heads=heads,
    )


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_runs(page: Path, shop: Path) -> None:
    """The blocks of a page, in order, in one namespace, as somebody would who follows it."""
    space: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, "python"):
        # Errors then point at the line of the page.
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        if block.needs:
            continue
        try:
            exec(code, space)
        except ImportError as error:
            missing = next((name for name in OPTIONAL if name in str(error)), None)
            if missing is None:
                raise
            pytest.skip(f"line {block.line} needs {missing}")


@pytest.mark.slow
@pytest.mark.skipif("courtyard" not in loading.list_worlds(), reason="no world is shipped")
def test_the_readme_runs_on_the_shipped_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "page"}
    for block in blocks(ROOT / "README.md", "python"):
        exec(compile(block.text, "README.md", "exec"), space)
    assert space["chunk"].frames.shape[2:] == (*SIZE, 3)  # type: ignore[attr-defined]


def command_lines(page: Path) -> list[str]:
    """What is typed after `magi-world` in the shell blocks of a page."""
    typed = []
    for block in blocks(page, "sh"):
        for line in block.text.splitlines():
            for part in re.split(r"&&|\|\||;", line.partition("#")[0]):
                word, _, rest = part.strip().partition(" ")
                if Path(word).name == "magi-world":
                    typed.append(rest)
    return typed


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_parse(page: Path) -> None:
    written = set()
    for line in command_lines(page):
        given = cli.read(shlex.split(line)).command
        if isinstance(given, NewWorld) and given.output:
            written.add(given.output)
        if isinstance(given, Record) and not given.script.endswith(".yaml"):
            find_script(given.script)
        if isinstance(given, TrainWorld | EvalWorld):
            assert given.config in written or (ROOT / given.config).is_file()


def test_commands_were_found() -> None:
    words = {line.split()[0] for page in PAGES for line in command_lines(page)}
    assert {"play", "record", "replay", "doctor", "worlds", "bench", "train-world"} <= words


def test_the_script_in_the_docs_is_right(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "docs" / "record.md", "yaml")
    path = tmp_path / "a.yaml"
    path.write_text(block.text)
    assert read_script(path).chunks == 31


def test_the_session_in_the_docs_is_right(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "docs" / "record.md", "json")
    path = tmp_path / "a.jsonl"
    path.write_text(block.text)
    kinds = [event.kind for event in read_session(path).events]
    assert kinds == ["reset", "step", "rewind", "fork", "step", "keep"]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_readme_opens_with_a_small_picture() -> None:
    first = (ROOT / "README.md").read_text("utf-8").splitlines()[0]
    path = ROOT / re.fullmatch(r"!\[.+\]\((.+)\)", first)[1]  # type: ignore[index]
    assert path.stat().st_size < LARGEST_PICTURE
    with Image.open(path) as picture:
        assert min(picture.size) >= 256
        assert getattr(picture, "n_frames", 1) > 1 or path.suffix == ".png"


def test_the_two_commands_are_one_line_each() -> None:
    play, tests = (b.text.strip() for b in blocks(ROOT / "README.md", "sh")[:2])
    for line in (play, tests):
        assert "\n" not in line
        assert " torch==2.13.0 " in line, "pinned, and before anything that would widen it"
    assert "magi-world play --else-record" in play
    assert "pytest" in tests


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["dynamic"] == ["version"]
    assert version("magi-world") == magi_world.__version__
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert project["license"] == "Apache-2.0"


def test_pages_name_no_registry() -> None:
    for page in PAGES:
        for host in re.findall(r"https?://([^/\s)]+)", page.read_text("utf-8")):
            assert not re.search(r"pypi|index|conda|download\.pytorch", host), f"{page}: {host}"


def test_the_environment_of_the_readme_is_registered() -> None:
    assert "MagiWorld-v0" in gym.registry
