"""The command line: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from magi_world import loading
from magi_world.demos import cli, doctor
from magi_world.io.media import load_video

pytestmark = pytest.mark.usefixtures("shop")


def run(*arguments: str) -> int:
    return cli.main(arguments)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    shown = capsys.readouterr().out
    for name in (
        "play",
        "record",
        "replay",
        "worlds",
        "doctor",
        "train-world",
        "train-agent",
        "eval-world",
        "export-recording",
        "bench",
    ):
        assert f"• {name} " in shown
        with pytest.raises(SystemExit) as ended:
            run(name, "--help")
        assert ended.value.code == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == "magi-world 0.1.0\n"


def test_record_replay_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run("record", "a.yaml", "-o", "a.mp4", "-o", "a.png", "--captions", "--upscale", "3") == 0
    )
    told = capsys.readouterr()
    assert "2.5 s of video, 96x144, 5 chunks, in " in told.out
    assert told.out.endswith("  a.mp4\n  a.png\n  a.session.jsonl\n")
    assert "5/5" in told.err
    assert run("replay", "a.session.jsonl") == 0
    assert capsys.readouterr().out == "identical: 5 chunks, byte for byte\n"
    assert run("replay", "a.session.jsonl", "--script", "b.yaml") == 0
    assert run("record", "b.yaml", "-o", "b.mp4", "--smooth", "--json") == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (made["chunks"], made["finished"], made["outputs"]) == (5, True, ["b.mp4"])
    assert load_video("b.mp4").shape == (40, 384, 576, 3)


def test_an_edited_session_differs_and_renders(capsys: pytest.CaptureFixture[str]) -> None:
    run("record", "a.yaml", "-o", "a.mp4", "--quiet")
    path = Path("a.session.jsonl")
    path.write_text(path.read_text().replace("walk forward", "walk backward"))
    capsys.readouterr()
    assert run("replay", "a.session.jsonl", "--quiet") == 1
    told = capsys.readouterr().out
    assert told.startswith("differs: a.session.jsonl, line 8, chunk 4: the checksum")
    assert "the session has been edited" in told
    assert run("replay", "a.session.jsonl", "--json") == 1
    assert json.loads(capsys.readouterr().out)["same"] is False
    assert run("replay", "a.session.jsonl", "-o", "b.mp4", "--steps", "8", "--quiet") == 0
    assert Path("b.mp4").stat().st_size > 0


def test_another_world_is_named_as_the_cause(capsys: pytest.CaptureFixture[str]) -> None:
    run("record", "a.yaml", "-o", "a.mp4", "--quiet")
    capsys.readouterr()
    assert run("replay", "a.session.jsonl", "--steps", "8", "--quiet") == 1
    assert "num_steps was 4, is 8" in capsys.readouterr().out


def test_a_truncated_session_replays(capsys: pytest.CaptureFixture[str]) -> None:
    run("record", "a.yaml", "-o", "a.mp4", "--quiet")
    path = Path("a.session.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    capsys.readouterr()
    assert run("replay", "a.session.jsonl", "--quiet") == 0
    told = capsys.readouterr().out
    assert "the last line was cut off" in told
    assert "identical: 4 chunks" in told


def test_export_to_minari(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(Path("data").absolute()))
    run("record", "a.yaml", "-o", "a.mp4", "--quiet")
    capsys.readouterr()
    assert run("replay", "a.session.jsonl", "--minari", "tiny/test-v0") == 0
    assert "tiny/test-v0: 1 episodes, 4 chunks" in capsys.readouterr().out
    episode = next(minari.load_dataset("tiny/test-v0").iterate_episodes())
    assert list(episode.actions) == ["turn left", "turn left", "turn left", "walk forward"]
    assert (episode.observations[0] == first_chunk()).all(), "lossless"
    assert run("replay", "a.session.jsonl", "--minari", "tiny/test-v0") == 2
    assert "the dataset tiny/test-v0 exists" in capsys.readouterr().err


def first_chunk() -> object:
    return loading.load_world("tiny", device="cpu").reset(seed=0).frames[0]


def test_a_missing_minari_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("record", "a.yaml", "-o", "a.mp4", "--quiet")
    monkeypatch.setitem(sys.modules, "minari", None)
    assert run("replay", "a.session.jsonl", "--minari", "x/y-v0") == 2
    assert "pip install 'magi-world[minari]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "record nothing -o a.mp4",
            "there is no script nothing; shipped ones are endurance",
        ),
        ("record a.yaml -o a.avi", "output is a.avi; it must end in .mp4, .gif, .png"),
        ("record a.yaml -o a.yaml", "output is a.yaml; it must end in"),
        (
            "record a.yaml -o a.mp4 --world no",
            "there is no world 'no'; it must be one of tiny, magi",
        ),
        ("record a.yaml -o a.mp4 --steps 3", "num_steps is 3; it must be divisible by"),
        ("record a.yaml -o a.mp4 --size 33x48", "height is 33; it must be divisible by 16"),
        ("record a.yaml -o a.mp4 --device cude", "--device cude cannot be used here"),
        ("record a.yaml -o a.mp4 --resume", "there is nothing to resume: a.mp4.resume does not"),
        ("record a.yaml -o a.mp4 --upscale 65", "upscale is 65; it must be a whole number from 1"),
        ("record a.yaml -o a.mp4 --weights x", "weights is for magi-1-4.5b-base"),
        ("record magi-lighthouse -o a.mp4", "magi-1-4.5b-distill needs weights=DIR"),
        ("replay a.yaml", "a.yaml, line 1: not JSON"),
        ("replay none.jsonl", "there is no session file none.jsonl"),
        ("record a.yaml", "outputs is empty; name a file that ends in .mp4, .gif, .png"),
        ("bench nowhere", "there is no world 'nowhere'"),
        ("play tiny --seed -1", "PlayConfig.seed is -1; it must be a whole number from 0"),
        ("play tiny --start -1", "PlayConfig.start is -1; it must be a whole number from 0"),
    ],
)
def test_mistakes_end_with_one_line(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*line.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.err.startswith(f"magi-world {line.split()[0]}: ")


def test_a_traceback_on_request() -> None:
    with pytest.raises(FileNotFoundError, match="no script nothing"):
        run("--traceback", "record", "nothing", "-o", "a.mp4")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("record", "Missing from magi-world record: SCRIPT"),
        ("record a.yaml -o a.mp4 --size 5", "--size: '5' is not HEIGHTxWIDTH, e.g. 480x832"),
        ("record a.yaml -o a.mp4 --dtype int8", "invalid choice 'int8' for argument '--dtype'"),
        ("bench --chunks 0", "--chunks: '0' is not a whole number from 1 on"),
        ("bench --seeds 0", "Unrecognized options: --seeds"),
        ("train-world a.yaml --quick soon", "--quick: 'soon' is not a number of minutes"),
        ("play --seed soon", "--seed"),
        ("completion csh", "'csh'"),
        ("paly", "Unrecognized options: paly"),
    ],
)
def test_wrong_usage(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*line.split())
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert message in " ".join(told.err.replace("│", "").split())
    assert "--help" in told.err


def test_ctrl_c_outside_of_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("magi_world.session.session.read_session", interrupted)
    assert run("replay", "a.jsonl") == 130


def test_worlds(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "worlds" / "broken").mkdir()
    (shop / "worlds" / "broken" / "world.json").write_text("{")
    assert run("worlds") == 0
    told = capsys.readouterr().out
    assert "32x48 at 16 frames/s" in told
    assert "commands: stand still, turn left, turn right, walk forward" in told
    assert "broken" in told
    assert "PROBLEM" in told
    assert "with --weights DIR: magi-1-4.5b-base" in told
    assert run("worlds", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [w["name"] for w in listed["worlds"]] == ["broken", "tiny"]
    assert listed["worlds"][1]["problems"] == []


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "--chunks", "4", "--json", "--num-worlds", "2") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["world"], made["chunks"], made["num_worlds"]) == ("tiny", 4, 2)
    assert made["generated_fps"] == pytest.approx(2 * 16 * made["realtime"])
    parts = made["denoise_ms_p50"] + made["decode_ms_p50"]
    assert 0 < made["denoise_ms_p50"] < parts < 3 * made["chunk_ms_p95"]
    assert run("bench", "tiny", "--chunks", "2", "--threads", str(torch.get_num_threads())) == 0
    assert "16 are shown" in capsys.readouterr().out


def test_doctor_on_a_healthy_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    told = capsys.readouterr().out
    assert f"ok      torch: {torch.__version__}" in told
    assert "ok      world tiny: loads in " in told
    assert told.endswith("all is well\n")


def test_doctor_finds_damage(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = shop / "worlds" / "tiny" / "dit.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    assert run("doctor") == 1
    told = capsys.readouterr().out
    assert "PROBLEM world tiny: dit.safetensors is damaged" in told
    assert told.endswith("1 problem\n")


def test_doctor_reports_on_weights(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "empty").mkdir()
    assert run("doctor", "--weights", "empty", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    names = [f["name"] for f in found["findings"]]
    assert names[:3] == ["python", "torch", "gpu"]
    assert names[-1] == "weights"
    assert found["problems"] == 1


def test_a_missing_codec_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_can_encode", lambda name: name == "mpeg4")
    assert doctor._codecs().verdict == "note"
    monkeypatch.setattr(doctor, "_can_encode", lambda name: False)
    assert doctor._codecs().verdict == "problem"


def test_no_world_at_all(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "SHIPPED", shop / "none")
    assert run("doctor") == 1
    assert "PROBLEM worlds: none is installed" in capsys.readouterr().out
    assert run("bench") == 2
    assert "no world is installed" in capsys.readouterr().err


def test_help_loads_neither_torch_nor_pygame() -> None:
    program = (
        "import sys\nfrom magi_world.demos import cli\n"
        "for name in map(cli.name, cli.COMMANDS):\n"
        "    try:\n        cli.main([name, '--help'])\n    except SystemExit:\n        pass\n"
        "print(sorted({'torch', 'pygame', 'av', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_one_line(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(loading, "load_world", full)
    assert run("record", "a.yaml", "-o", "a.mp4") == 2
    shown = capsys.readouterr().err
    assert shown.startswith("magi-world record: out of memory (")
    assert shown.count("\n") == 1
    monkeypatch.setattr(loading, "load_world", lambda *_, **__: [][0])
    with pytest.raises(IndexError):
        run("record", "a.yaml", "-o", "a.mp4")
