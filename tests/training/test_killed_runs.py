"""`train-world` killed, stopped and started twice: nothing is lost, and nobody is left behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from toy_world import CONFIG, write_config, write_text

from magi_world.demos.cli import main
from magi_world.io.package import check_package
from magi_world.training.progress import Estimate
from magi_world.training.run import alone
from magi_world.training.text import TEXT
from magi_world.training.train import train_world
from tests.killing import took, until_done

HERE = str(Path(__file__).parent)


def weights(folder: Path) -> dict[str, bytes]:
    """All that was trained, and the recording."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("world", "data")
        for path in sorted((folder / part).rglob("*.safetensors"))
    }


@pytest.mark.slow
def test_a_killed_run_trains_the_same_world(tmp_path: Path) -> None:
    config = tmp_path / "bar.yaml"
    config.write_text(CONFIG.replace("ema: 0.5}", "ema: 0.5, save_seconds: 0}"))

    def job(folder: Path) -> None:
        train_world(config, folder, "cpu")

    for name in ("whole", "cut"):
        write_text(tmp_path / name / TEXT)
    unit = took(lambda: job(tmp_path / "whole"))
    done = until_done("train-world", lambda: job(tmp_path / "cut"), unit, 15)
    assert done > 1
    assert check_package(tmp_path / "cut" / "world") == []
    whole, cut = (weights(tmp_path / name) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for name, content in whole.items():
        assert cut[name] == content, f"{name} after {done} kills"
    figures = [json.loads((tmp_path / n / "quality.json").read_text()) for n in ("whole", "cut")]
    assert figures[0]["rollout_psnr_db"] == figures[1]["rollout_psnr_db"]
    left = {path.name for path in (tmp_path / "cut").iterdir() if path.suffix == ".lock"}
    assert not left


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def until(met: Callable[[], object], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@contextmanager
def recording(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, list[int]]]:
    """The command while it records in two processes: itself, its folder, the processes."""
    for needed in ("matplotlib", "model2vec", "transformers"):  # the command checks for them
        pytest.importorskip(needed)
    long = [("chunks: 240", "chunks: 3_000_000"), ("processes: 1", "processes: 2")]
    config = write_config(
        tmp_path / "bar.yaml", *long, ("chunks_per_shard: 80", "chunks_per_shard: 1_000_000")
    )
    folder = tmp_path / "run"
    # A run that goes on is not rehearsed.
    (folder / "data").mkdir(parents=True)
    Estimate({}, {}, 0, 0).save(folder)
    (folder / "some.ckpt").touch()
    code = f"import sys; sys.path.insert(0, {HERE!r}); from magi_world.demos.cli import main; "
    line = f"main(['train-world', {str(config)!r}, '--run', {str(folder)!r}])"
    script = tmp_path / "command.py"
    script.write_text(f"{code}\nif __name__ == '__main__':\n    sys.exit({line})\n")
    command = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE)
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    try:
        until(lambda: (folder / ".lock").exists(), "it begins")
        until(lambda: len(children.read_text().split()) >= 3, "the workers start")
        time.sleep(1.5)
        yield command, folder, [int(pid) for pid in children.read_text().split()]
    finally:
        command.kill()
        command.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_stopped_command_leaves_no_worker_and_a_second_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with recording(tmp_path) as (command, folder, workers):
        assert main(["train-world", str(tmp_path / "bar.yaml"), "--run", str(folder)]) == 2
        told = capsys.readouterr().err
        assert re.search(r"run is being written by another process; wait for it", told)
        assert command.poll() is None, "the first one goes on"
        command.send_signal(signal.SIGTERM)
        _, said = command.communicate(timeout=120)
        until(lambda: not any(alive(pid) for pid in workers), "a worker is left")
        assert command.returncode not in (0, 1), said
        assert b"record stopped" in said
        assert b"Traceback" not in said
    assert not list((folder / "data").glob("*"))
    with alone(folder):  # the folder is free again
        pass
