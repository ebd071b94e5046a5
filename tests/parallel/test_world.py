"""One world over several processes: the same to the bit, one error, films that can go on."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from magi_world.io.safetensors_io import load_tensors
from magi_world.loading import load_world
from tests.parallel import story
from tests.parallel.launch import finish, run_ranks, start_ranks
from tests.test_reference import tolerance
from tests.tiny import write_tiny_package

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_package(tmp_path_factory.mktemp("world") / "tiny", num_steps=2)


@pytest.fixture(scope="module")
def alone(package: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return story.tell(str(package), None, str(tmp_path_factory.mktemp("alone") / "one"))


@pytest.mark.parametrize(
    ("size", "parallel"), [(2, "auto"), pytest.param(4, "4", marks=pytest.mark.slow), (4, "2x2")]
)
def test_the_story_is_the_same_to_the_bit_and_goes_on_elsewhere(
    size: int, parallel: str, package: Path, alone: dict[str, Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "told.safetensors"
    arguments = [str(HERE / "story.py"), str(package), parallel, str(out)]
    for done in run_ranks(size, arguments):
        assert done.returncode == 0, done.stderr
    told = load_tensors(out)
    assert told.keys() == alone.keys()
    different = [name for name, latents in alone.items() if not torch.equal(latents, told[name])]
    assert not different
    # Its snapshot file is one of the whole, which a single process continues.
    later = story.go_on(str(package), None, f"{out}.snapshot")
    assert torch.equal(later["on"], alone["on"])


def test_a_snapshot_of_one_process_is_continued_by_two(
    package: Path, alone: dict[str, Tensor], tmp_path: Path
) -> None:
    one = str(tmp_path / "one")
    story.tell(str(package), None, one)
    out = tmp_path / "two.safetensors"
    snapshot = f"{one}.snapshot"
    arguments = [str(HERE / "story.py"), str(package), "auto", str(out), snapshot]
    for done in run_ranks(2, arguments):
        assert done.returncode == 0, done.stderr
    expected = story.go_on(str(package), None, snapshot)
    for name, latents in load_tensors(out).items():
        assert torch.equal(latents, expected[name])


@pytest.mark.parametrize(
    ("size", "split"), [(2, "2"), pytest.param(4, "4", marks=pytest.mark.slow), (4, "2x2")]
)
def test_reference_cases(size: int, split: str, tmp_path: Path) -> None:
    out = tmp_path / "errors.json"
    for done in run_ranks(size, [str(HERE / "goldens.py"), split, str(out)], patience=300):
        assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert len(found) == 18
    for name, errors in found.items():
        case = json.loads(_metadata(GOLDEN / name)["case"])
        assert errors
        wrong = {part: error for part, error in errors.items() if not error <= tolerance(case)}
        assert not wrong, f"{name}: {wrong}"


def test_numbers_that_do_not_divide_end_all_with_one_line(package: Path) -> None:
    done = run_ranks(3, ["-m", "magi_world", "record", *_film(package, package / "no.mp4", 2)])
    assert [d.returncode for d in done] == [2, 2, 2]
    assert "4 query heads over 2 key/value groups cannot be split over 3 ranks" in done[0].stderr
    assert "1, 2, 4" in done[0].stderr
    assert done[1].stderr == done[2].stderr == ""


def test_another_number_than_was_started_is_refused(package: Path) -> None:
    film = _film(package, package / "no.mp4", 2)
    done = run_ranks(2, ["-m", "magi_world", "record", *film, "--parallel", "4"])
    assert [d.returncode for d in done] == [2, 2]
    assert "torchrun started 2" in done[0].stderr
    assert done[1].stderr == ""


def test_processes_with_other_worlds_are_refused(package: Path, tmp_path: Path) -> None:
    other = write_tiny_package(tmp_path / "other", num_steps=8)
    program = (
        "import os, sys; from magi_world.loading import load_world;"
        f"load_world([{str(package)!r}, {str(other)!r}][int(os.environ['RANK'])], parallel='auto')"
    )
    done = run_ranks(2, ["-c", program])
    assert all(d.returncode for d in done)
    assert "the processes differ in configuration" in done[0].stderr
    assert "rank 1 has" in done[0].stderr


def test_without_torchrun_it_is_said_how(package: Path) -> None:
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 2"):
        load_world(package, parallel=2)
    assert load_world(package, parallel="auto").parts.processes == 1


def test_a_film_over_two_ranks_is_that_of_one(package: Path, tmp_path: Path) -> None:
    film = tmp_path / "two.mp4"
    done = run_ranks(2, ["-m", "magi_world", "record", *_film(package, film, 3)])
    assert [d.returncode for d in done] == [0, 0], done[0].stderr
    alone = run_ranks(1, ["-m", "magi_world", "record", *_film(package, tmp_path / "1.mp4", 3)])
    assert alone[0].returncode == 0, alone[0].stderr
    assert film.read_bytes() == (tmp_path / "1.mp4").read_bytes()


def test_a_rank_that_dies_ends_all_in_seconds_and_the_film_goes_on(
    package: Path, tmp_path: Path
) -> None:
    film = tmp_path / "film.mp4"
    chunks = 150
    processes = start_ranks(2, ["-m", "magi_world", "record", *_film(package, film, chunks)])
    folder = film.with_name("film.mp4.resume")
    end = time.monotonic() + 100
    while len(list(folder.glob("chunk-*"))) < 5 and time.monotonic() < end:
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.02)
    processes[1].kill()
    killed = time.monotonic()
    done = finish(processes, patience=30)
    assert time.monotonic() - killed < 15
    assert done[0].returncode == 2
    assert done[0].stderr.count("rank 1 of 2 has gone") == 1
    assert "Traceback" not in done[0].stderr
    assert _frames(film) >= 5 * 8
    again = run_ranks(1, ["-m", "magi_world", "record", *_film(package, film, chunks), "--resume"])
    assert again[0].returncode == 0, again[0].stderr
    assert _frames(film) == (chunks + 1) * 8


def _film(package: Path, output: Path, chunks: int) -> list[str]:
    script = output.parent / f"{output.stem}-{chunks}.yaml"
    script.write_text(
        f"world: {package}\nseed: 1\nscript:\n  - {{say: turn left, for: {chunks}}}\n",
        encoding="utf-8",
    )
    options = ["--device", "cpu", "--threads", "1", "--quiet"]
    return [str(script), "-o", str(output), *options]


def _frames(film: Path) -> int:
    import av

    with av.open(str(film)) as opened:
        return sum(1 for _ in opened.decode(video=0))


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        return opened.metadata()
