"""Actions are read as sentences: what is understood, what is to come, what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magi_world.envs import MagiWorldEnv, MagiWorldVectorEnv
from magi_world.envs.record import RecordChunks
from magi_world.envs.state import EnvSnapshot
from magi_world.session.events import Said, Step
from magi_world.session.player import Verdict, verify
from magi_world.session.session import read_session
from tests.envs.worlds import fast_world
from tests.tiny import tiny_world

SENTENCE = "turn left twice, then walk forward"


def played(env: MagiWorldEnv, texts: list[str]) -> list[dict[str, Any]]:
    return [env.step(text)[4] for text in texts]


def test_a_sentence_is_done_chunk_by_chunk() -> None:
    env = MagiWorldEnv(fast_world())
    _, info = env.reset(seed=0)
    assert info["understood"] == {"command": "stand still", "confidence": 1.0, "queue": []}
    infos = played(env, [SENTENCE, "keep going", "keep going", "keep going"])
    assert [i["prompt"] for i in infos] == [
        "turn left",
        "turn left",
        "walk forward",
        "walk forward",
    ]
    assert [i["understood"]["queue"] for i in infos] == [
        ["turn left", "walk forward"], ["walk forward"], [], [],
    ]  # fmt: skip
    assert [i["understood"]["command"] for i in infos] == [i["prompt"] for i in infos]


def test_a_sentence_gives_the_bytes_of_its_commands() -> None:
    said, spelt = MagiWorldEnv(fast_world()), MagiWorldEnv(fast_world(), strict=False)
    said.reset(seed=3), spelt.reset(seed=3)
    for text, command in (
        (SENTENCE, "turn left"),
        ("go on", "turn left"),
        ("go on", "walk forward"),
    ):
        assert (said.step(text)[0] == spelt.step(command)[0]).all()


def test_what_is_not_understood_leaves_the_command_and_the_queue() -> None:
    env = MagiWorldEnv(fast_world())
    env.reset(seed=0)
    env.step("turn left 3 times, then walk forward")
    for text, queue in (("fly away", ["turn left", "walk forward"]), ("do not stop it", [])):
        info = env.step(text)[4]
        assert info["prompt"] == "turn left"
        assert info["understood"]["command"] is None
        assert info["understood"]["confidence"] < env.world.interpreter.threshold
        assert info["understood"]["queue"] == (queue or ["walk forward"])
        assert env.reading is not None
        assert env.reading.answer
    assert env.step("fly away")[4]["prompt"] == "walk forward"


def test_a_slip_is_put_right() -> None:
    env = MagiWorldEnv(fast_world())
    env.reset(seed=0)
    info = env.step("trun left")[4]
    assert info["prompt"] == "turn left"
    assert info["understood"] == {"command": "turn left", "confidence": 0.93, "queue": []}


def test_the_queue_is_part_of_the_state(tmp_path: Path) -> None:
    env = MagiWorldEnv(fast_world())
    env.reset(seed=1)
    env.step(SENTENCE)
    state = env.snapshot()
    state.save(tmp_path / "s.safetensors")
    loaded = EnvSnapshot.load(tmp_path / "s.safetensors")
    wanted = [
        (o.tobytes(), i["prompt"]) for o, _, _, _, i in (env.step("keep going") for _ in "123")
    ]
    assert [p for _, p in wanted] == ["turn left", "walk forward", "walk forward"]
    other = MagiWorldEnv(fast_world())
    other.reset(seed=5)
    for again in (env, other):
        again.restore(loaded)
        got = [again.step("keep going") for _ in "123"]
        assert [(s[0].tobytes(), s[4]["prompt"]) for s in got] == wanted
    env.restore(state)
    for twin in (env.fork(1)[0], copy.deepcopy(env)):
        assert twin.step("keep going")[0].tobytes() == wanted[0][0]


def test_every_world_of_a_batch_has_its_own_queue() -> None:
    envs = MagiWorldVectorEnv(3, fast_world())
    envs.reset(seed=0)
    *_, info = envs.step((SENTENCE, "fly away", "turn right twice"))
    assert info["prompt"].tolist() == ["turn left", "stand still", "turn right"]
    told = info["understood"]
    assert told["command"].tolist() == ["turn left", None, "turn right"]
    assert list(told["queue"]) == [["turn left", "walk forward"], [], ["turn right"]]
    assert np.allclose(told["confidence"][[0, 2]], 1.0)
    *_, info = envs.step(("keep going",) * 3)
    assert info["prompt"].tolist() == ["turn left", "stand still", "turn right"]
    *_, info = envs.step(("fly away",) * 3)
    assert info["prompt"].tolist() == ["walk forward", "stand still", "stand still"]


def test_a_session_tells_the_sentence_and_what_became_of_it(tmp_path: Path) -> None:
    env = RecordChunks(MagiWorldEnv(tiny_world()), tmp_path)
    env.reset(seed=4)
    for text in (SENTENCE, "keep going", "open the door", "turn right"):
        env.step(text)
    (path,) = (f for f in env.files if f.suffix == ".jsonl")
    env.close()
    session = read_session(path)
    said = [e for e in session.events if isinstance(e, Said)]
    assert [s.text for s in said] == [SENTENCE, "keep going", "open the door"]
    assert said[0].steps == (("turn left", 2), ("walk forward", None))
    assert said[2].steps == ()
    assert "door" in said[2].answer or "open" in said[2].answer
    steps = [e.say for e in session.events if isinstance(e, Step)]
    assert steps == ["turn left", "turn left", "walk forward", "turn right"]
    *_, verdict = verify(session, tiny_world())
    assert isinstance(verdict, Verdict)
    assert verdict.difference is None
    assert verdict.compared == 5


@pytest.mark.parametrize("strict", [None, "yes", 2])
def test_strict_is_yes_or_no(strict: Any) -> None:
    with pytest.raises(ValueError, match="strict is"):
        MagiWorldEnv(fast_world(), strict=strict)
