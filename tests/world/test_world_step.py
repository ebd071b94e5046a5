"""The world as its users see it: steps, starts, steering, resets, bad input."""

from __future__ import annotations

import _thread
import copy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from magi_world.world.start import choose_start
from magi_world.world.world import World
from tests.alike import assert_alike
from tests.tiny import FRAME_SIZE, tiny_parts, tiny_world

SAY = ("turn left", "walk forward", "juggle three torches")


def frames(world: World, count: int = 3, **options: str) -> np.ndarray:
    return np.stack([world.step(SAY[i % 3], **options).frames for i in range(count)])


def picture(seed: int = 0, *lead: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*lead, *FRAME_SIZE, 3), dtype=np.uint8)


def test_step_gives_a_chunk_of_video() -> None:
    world = tiny_world(2)
    start = world.reset(seed=3)
    chunk = world.step(["turn left", "walk forward"])
    assert start.frames.shape == chunk.frames.shape == (2, 8, *FRAME_SIZE, 3)
    assert chunk.frames.dtype == np.uint8
    assert chunk.index == chunk.lands == (1, 1)
    assert chunk.prompts == ("turn left", "walk forward")
    assert not np.array_equal(chunk.frames[0], chunk.frames[1])


def test_a_chunk_comes_with_the_one_before() -> None:
    plain = tiny_world(2)
    plain.reset(seed=3)
    assert plain.step("turn left").before is None  # nobody looks at it
    parts = replace(tiny_parts(), heads=SimpleNamespace(chunks=2))
    world = World(parts, 2)
    start = world.reset(seed=3)
    assert start.before is None
    assert start.seen is start.latents
    first = world.step("turn left")
    assert first.before is not None
    assert torch.equal(first.before, start.latents)
    assert torch.equal(first.seen, torch.cat([start.latents, first.latents], 2))
    state = world.snapshot()
    second = world.step("walk forward", worlds=[1])
    assert torch.equal(second.seen, torch.cat([first.latents[1:], second.latents], 2))
    world.restore(state)
    assert torch.equal(world.step("walk forward").seen[1:], second.seen)


def test_text_steers() -> None:
    world = tiny_world()
    world.reset(seed=1)
    state = world.snapshot()
    left = world.step("turn left").latents
    world.restore(state)
    right = world.step("turn right").latents
    world.restore(state)
    again = world.step("turn left").latents
    assert torch.equal(left, again)
    assert not torch.equal(left, right)


def test_same_seed_and_commands_same_bytes_in_another_process() -> None:
    program = (
        "import hashlib, torch; torch.set_num_threads(1)\n"
        "from tests.tiny import tiny_world\n"
        "w = tiny_world(2); w.reset(seed=11)\n"
        "f = b''.join(w.step(c).frames.tobytes() for c in ('turn left', 'walk forward'))\n"
        "print(hashlib.sha256(f).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert len(runs[0].stdout) > 60
    assert runs[0].stdout == runs[1].stdout


@pytest.mark.parametrize("window", [1, 4])
def test_batch_equals_solo(window: int) -> None:
    batch = tiny_world(3, window)
    batch.reset(seed=[4, 9, 4], prompt=["a cave", "a beach", "a cave"])
    together = [batch.step([SAY[(i + k) % 3] for k in range(3)]).frames for i in range(4)]
    for k, (seed, scene) in enumerate([(4, "a cave"), (9, "a beach"), (4, "a cave")]):
        solo = tiny_world(1, window)
        solo.reset(seed=seed, prompt=scene)
        for i, both in enumerate(together):
            assert_alike(solo.step(SAY[(i + k) % 3]).frames[0], both[k])


@pytest.mark.parametrize("window", [1, 2])
def test_reset_of_one_world_touches_no_other(window: int) -> None:
    plain, partly = tiny_world(3, window), tiny_world(3, window)
    for world in (plain, partly):
        world.reset(seed=5)
        frames(world, 2)
    fresh = partly.reset(seed=77, worlds=[1])
    assert fresh.frames.shape[0] == 1
    for _ in range(4):
        a, b = plain.step("turn left"), partly.step("turn left")
        np.testing.assert_array_equal(a.frames[[0, 2]], b.frames[[0, 2]])
        assert not np.array_equal(a.frames[1], b.frames[1])
    solo = tiny_world(1, window)
    solo.reset(seed=77)
    want = [solo.step("turn left").frames[0] for _ in range(4)]
    assert_alike(want[-1], b.frames[1])
    assert b.index == (6, 4, 6)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_where_a_command_lands(window: int) -> None:
    world = tiny_world(1, window)
    world.reset(seed=0)
    assert world.step("turn left").lands == (1,)
    now = world.step("turn right")
    assert (now.index, now.lands) == ((2,), (2,))
    queued = world.step("walk forward", steer="queue")
    assert (queued.index, queued.lands) == ((3,), (3 + window - 1,))
    assert world.step(None).lands == queued.lands


def test_queue_leaves_chunks_in_flight_alone() -> None:
    chunks = {}
    for steer in ("now", "queue", None):
        world = tiny_world(1, 4)
        world.reset(seed=2)
        frames(world, 2)
        if steer is None:
            chunks[steer] = [world.step(None).latents for _ in range(4)]
        else:
            chunks[steer] = [world.step("turn right", steer=steer).latents for _ in range(4)]
    assert not torch.equal(chunks["now"][0], chunks[None][0])
    assert not torch.equal(chunks["queue"][3], chunks[None][3])
    # A queued command is seen only by the chunk that begins with it; older ones do not look ahead.
    for i in range(3):
        assert_alike(chunks["queue"][i], chunks[None][i])


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("count", [1, 2, 4, 7, 8, 19, 40])
def test_video_of_any_length(window: int, count: int) -> None:
    world = tiny_world(1, window)
    video = picture(1, count)
    start = world.reset(seed=0, video=video)
    np.testing.assert_array_equal(start.frames[0, -1], video[-1])
    chunk = world.step("turn left")
    whole, rest = divmod(count // 4 if count >= 4 else 1, 2)
    assert chunk.skip == (0 if whole == 0 and rest == 1 else rest * 4,)
    assert world.step("turn left").skip == (0,)


def test_chunks_of_a_long_video_are_encoded_as_they_were_in_training() -> None:
    world, video = tiny_world(), picture(1, 24)
    alone = world.reset(seed=0, video=video[16:]).latents
    assert torch.equal(world.reset(seed=0, video=video).latents, alone)


def test_image_start_is_seen() -> None:
    world = tiny_world()
    start = world.reset(seed=0, image=picture(1))
    assert start.frames.shape == (1, 8, *FRAME_SIZE, 3)
    assert (start.frames[0] == picture(1)).all()
    one = world.step("turn left").latents
    world.reset(seed=0, image=picture(2))
    assert not torch.equal(one, world.step("turn left").latents)


def test_one_image_per_world() -> None:
    world = tiny_world(2)
    both = world.reset(seed=[0, 0], image=picture(1, 2)).frames
    np.testing.assert_array_equal(both[:, 0], picture(1, 2))


def test_text_alone_denoises_the_first_chunk() -> None:
    world = tiny_world(1, 4)
    start = world.reset(seed=0, prompt="a cave", start="text")
    assert start.index == (0,)
    assert world.step("turn left").index == (1,)


def test_starts_follow_the_seed_and_can_be_chosen() -> None:
    world = tiny_world()
    by_number = [world.reset(seed=0, start=i).latents for i in range(3)]
    by_seed = [world.reset(seed=s).latents for s in range(12)]
    found = {next(i for i, x in enumerate(by_number) if torch.equal(x, y)) for y in by_seed}
    assert found == {0, 1, 2}


def test_decoding_may_overlap_with_the_next_chunk() -> None:
    plain, piped = tiny_world(), tiny_world()
    plain.reset(seed=8)
    piped.reset(seed=8)
    want = frames(plain, 6)
    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(piped.decode, piped.step_latents(SAY[i % 3])) for i in range(6)]
    np.testing.assert_array_equal(want, np.stack([p.result().frames for p in pending]))


def test_latents_only_chunk_says_how_to_decode() -> None:
    world = tiny_world()
    world.reset()
    with pytest.raises(ValueError, match=r"World\.decode"):
        _ = world.step_latents("turn left").frames


def test_progress_counts_the_steps() -> None:
    world, seen = tiny_world(1, 1, num_steps=4), []
    world.reset()
    world.step("turn left", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_noise_scale_changes_the_dream() -> None:
    worlds = [World(tiny_parts(), noise_scale=s) for s in (1.0, 0.5)]
    for world in worlds:
        world.reset(seed=0)
    assert not torch.equal(*(w.step("turn left").latents for w in worlds))


BAD_STEPS = [
    (3, "command is 3; it must be str"),
    (["turn left"], "1 entries, but there are 2 worlds"),
    (["turn left", 5], "command is 5"),
    ("", "must say something"),
    ("  ", "must say something"),
    ("word " * 2000, "at most"),
]


@pytest.mark.parametrize(("command", "message"), BAD_STEPS)
def test_bad_commands_leave_the_world_as_it_was(command: object, message: str) -> None:
    world, twin = tiny_world(2), tiny_world(2)
    for w in (world, twin):
        w.reset(seed=6)
        w.step("turn left")
    with pytest.raises(ValueError, match=message):
        world.step(command)
    np.testing.assert_array_equal(world.step("go").frames, twin.step("go").frames)


BAD_RESETS = [
    ({"seed": "x"}, "seed is 'x'"),
    ({"seed": [1, 2, 3]}, "3 entries, but there are 2 worlds"),
    ({"prompt": ["a"]}, "1 entries"),
    ({"prompt": ""}, "must say something"),
    ({"image": np.zeros((32, 32, 3), np.uint8)}, r"\(32, 48, 3\)"),
    ({"image": np.zeros((32, 48, 3), np.float32)}, "dtype torch.float32; it must be uint8"),
    ({"image": "cat.png"}, "image is a str"),
    ({"video": np.zeros((0, 32, 48, 3), np.uint8)}, "video has shape"),
    ({"video": np.zeros((4, 32, 48, 4), np.uint8)}, "video has shape"),
    ({"image": picture(0), "start": 1}, "image and start were given"),
    ({"start": 3}, r"start is 3; it must be 'text' or 0 .. 2"),
    ({"start": "cave"}, "start is 'cave'"),
    ({"worlds": [2]}, r"worlds is \[2\]"),
    ({"worlds": []}, r"worlds is \[\]"),
    ({"worlds": [0, 0]}, "each once"),
    ({"worlds": [True, False]}, "a list of whole numbers"),
    ({"worlds": np.array([True, True])}, "a list of whole numbers"),
    ({"worlds": 0}, "worlds is 0; it must be a list"),
    ({"seed": -1}, "seed is -1; it must be a whole number from 0"),
    ({"seed": [3, -7]}, "seed is -7"),
    ({"seed": 2**63}, r"2\*\*63 or more"),
    ({"start": True}, "start is True"),
    ({"image": np.zeros((32, 48, 3), object)}, "dtype object; it must be uint8"),
    ({"video": np.zeros((3, 2, 2, 3), np.uint8)}, r"it must be \(T, 32, 48, 3\), or \(2, T, 32,"),
]


@pytest.mark.parametrize(("options", "message"), BAD_RESETS)
def test_bad_resets_leave_the_world_as_it_was(options: dict, message: str) -> None:
    world, twin = tiny_world(2), tiny_world(2)
    for w in (world, twin):
        w.reset(seed=6)
        w.step("turn left")
    with pytest.raises(ValueError, match=message):
        world.reset(**options)
    np.testing.assert_array_equal(world.step("go").frames, twin.step("go").frames)


def test_step_before_reset_and_unknown_steer() -> None:
    world = tiny_world(2)
    with pytest.raises(ValueError, match="world 0 was not reset"):
        world.step("go")
    world.reset(worlds=[0])
    with pytest.raises(ValueError, match="world 1 was not reset"):
        world.step("go")
    world.reset()
    with pytest.raises(ValueError, match="steer is 'later'"):
        world.step("go", steer="later")


@pytest.mark.parametrize(
    "options",
    [
        {"num_worlds": 0},
        {"num_worlds": True},
        {"num_worlds": "2"},
        {"noise_scale": 0.0},
        {"noise_scale": float("inf")},
        {"noise_scale": "1"},
        {"attention": "x"},
    ],
)
def test_bad_construction(options: dict) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        World(tiny_parts(), **options)


def test_a_scene_may_contain_the_word_command_in_braces() -> None:
    spec = replace(tiny_parts().spec, prompt_template="{scene}: {command}")
    assert spec.caption("a {command} {scene} b", "turn {scene}") == (
        "a {command} {scene} b: turn {scene}"
    )


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_cancelled_step_leaves_no_trace(window: int, steps: int) -> None:
    world, twin = tiny_world(2, window), tiny_world(2, window)
    for w in (world, twin):
        w.reset(seed=6)
        for _ in range(steps):
            w.step("walk forward")

    def cancel(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.step("turn left", progress=cancel)
    for _ in range(window + 1):
        np.testing.assert_array_equal(world.step("hop").frames, twin.step("hop").frames)


def test_a_step_that_cannot_be_decoded_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    world, twin = tiny_world(1, 2), tiny_world(1, 2)
    for w in (world, twin):
        w.reset(seed=6)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("magi_world.world.chunk.decode_latents", interrupted)
        with pytest.raises(KeyboardInterrupt):
            world.step("turn left")
    assert world.snapshot().prompts == twin.snapshot().prompts
    np.testing.assert_array_equal(world.step("hop").frames, twin.step("hop").frames)


@pytest.fixture
def _ctrl_c_counts() -> Iterator[None]:
    """Whoever started the tests in the background has Ctrl-C ignored in them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_counts")
def test_ctrl_c_at_any_moment_leaves_the_world_before_or_after_a_step() -> None:
    world, twin = tiny_world(1, 2), tiny_world(1, 2)
    for w in (world, twin):
        w.reset(seed=6)
        w.step("hop")
    begin, after = twin.snapshot(), [twin.step(c).latents for c in ("turn left", "hop")]
    interrupted = 0
    for number in range(60):
        world.restore(begin)
        timer = threading.Timer(number * 0.0005, _thread.interrupt_main)
        try:
            try:
                timer.start()
                world.step("turn left")
            finally:
                timer.join()
            time.sleep(0.001)  # where the signal of a timer that came late is seen
        except KeyboardInterrupt:
            interrupted += 1
        for want in after[world.snapshot().prompts[0].steps - 1 :]:
            command = "turn left" if want is after[0] else "hop"
            assert torch.equal(world.step(command).latents, want)
    assert interrupted > 30


def test_an_interrupted_reset_has_to_be_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(2)
    world.reset(seed=1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("magi_world.world.chunk.decode_latents", interrupted)
        with pytest.raises(KeyboardInterrupt):
            world.reset(seed=5, start="text", worlds=[1])
    with pytest.raises(ValueError, match="world 1 was not reset"):
        world.step("hop")
    world.reset(seed=5, start="text", worlds=[1])
    world.step("hop")


def test_start_frames_lie_where_the_model_is() -> None:
    parts = tiny_parts()
    dit, vae = (copy.deepcopy(part).to("meta") for part in (parts.dit, parts.vae))
    moved = replace(parts, dit=dit, vae=vae)
    chosen = choose_start(moved, [0], picture(0))
    assert chosen is not None
    assert chosen.frames is not None
    assert chosen.frames.device.type == "meta"


def test_more_worlds_than_memory_are_refused_before_they_are_made() -> None:
    with pytest.raises(ValueError, match=r"num_worlds is 10000000000; .* GB of memory"):
        tiny_world(10**10)


def test_nan_in_the_weights_is_named_at_first_use() -> None:
    parts = tiny_parts()
    name = "videodit_blocks.layers.1.mlp.linear_fc2.weight"
    parts.dit.get_parameter(name).data[0, 0] = float("nan")
    world = World(parts)
    world.reset()
    with pytest.raises(ValueError, match=name):
        world.step("go")
