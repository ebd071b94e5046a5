"""What the worker's answers do to the player."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from magi_world.demos.window import jobs
from magi_world.demos.window.controllers import HUMAN
from magi_world.demos.window.moment import Moment
from magi_world.demos.window.pace import Pace
from magi_world.demos.window.playback import Playback
from magi_world.demos.window.steering import KeyMap, Steering

if TYPE_CHECKING:
    from magi_world.demos.window.player import Player


def take(player: Player, answer: jobs.Answer) -> None:
    """Go on with what was made, or show what went wrong."""
    match answer:
        case jobs.Failed():
            _failed(player, answer)
        case jobs.Asked():
            player.plan = answer
        case jobs.Stepped():
            player.playback.pace.made(answer.moment.seconds)
            player.playback.ahead, player.failures = answer, 0
        case jobs.Opened():
            _opened(player, answer)
        case jobs.Begun():
            _begun(player, answer.moment, answer.start)
        case jobs.Loaded():
            _loaded(player, answer)
        case jobs.Saved():
            words = f"saved in slot {answer.slot}: L, then {answer.slot} brings it back"
            player.notices.info(words)
        case jobs.Imagined():
            if player.futures is not None:
                player.futures.take(answer)
        case jobs.Kept():
            _kept(player, answer)


def _opened(player: Player, answer: jobs.Opened) -> None:
    spec, config = answer.spec, player.config
    player.opened = answer
    if answer.threads is not None:
        # A setting of each thread; what is written about this one is what the worker has.
        torch.set_num_threads(answer.threads)
    player.steering = Steering(KeyMap(spec.commands), spec.default_command)
    for name in player.controllers.offer(answer.agents, spec):
        player.notices.info(f"{name} does not know the commands of {spec.name}")
    bytes_kept = answer.world.cache_bytes + answer.moment.frames.nbytes
    ring = max(2, min(config.ring_chunks, config.ring_bytes // max(1, bytes_kept)))
    pace = Pace(spec.fps, spec.frames_per_chunk)
    player.playback = Playback(pace, ring, answer.frames_per_latent)
    player.histories.clear()
    player.tell(lambda w: w.opened(answer))
    _begun(player, answer.moment, answer.start)


def _begun(player: Player, moment: Moment, start: jobs.Start) -> None:
    # A fresh seed is known only now; beginning again means this one.
    player.start = replace(start, seed=moment.seed)
    _fresh(player, moment)
    player.tell(lambda w: w.begun(moment, player.start))


def _fresh(player: Player, moment: Moment) -> None:
    player.futures, player.plan, player.reading, player.failures = None, None, None, 0
    player.steering.say(None)
    player.delay.forget()
    player.playback.begin(moment)


def _loaded(player: Player, answer: jobs.Loaded) -> None:
    """Play goes on from there, under the command of that moment, with what came before it."""
    moment = answer.moment
    # A slot of this session brings its past along; a file only the moment itself.
    *past, saved = player.histories.get(answer.slot or 0, (moment,))
    if saved.index == moment.index and saved.score is not None:
        moment = replace(moment, score=saved.score)
    _fresh(player, moment)
    player.playback.timeline.clear()
    for earlier in (*past, moment):
        player.playback.timeline.append(earlier)
    default = player.steering.default
    if moment.command != default:
        player.steering.say(moment.command)
    player.tell(lambda w: w.loaded(answer))
    name = answer.path.name if answer.slot is None else f"slot {answer.slot}"
    player.notices.info(f"{name} is loaded; [ goes back before it" if past else f"{name} is loaded")


def _kept(player: Player, answer: jobs.Kept) -> None:
    if not player.playback.timeline.at_end:
        player.tell(lambda w: w.rewound(answer.job.base))
    player.futures = None
    player.playback.extend(answer.moments)
    player.tell(lambda w: w.kept(answer))
    command = answer.job.commands[answer.job.row]
    if player.controllers.agent is None:
        player.steering.say(command)
    player.pause(False)
    player.notices.info(f"this future is now the world: {command}")


def _failed(player: Player, answer: jobs.Failed) -> None:
    player.notices.error(answer.error)
    match answer.job:
        case jobs.Step() | jobs.Ask():
            player.failures += 1
            if player.controllers.name != HUMAN:
                player.notices.error(f"{player.controllers.name} failed; you steer again")
            player.hand_to(HUMAN)
            player.steering.say(None)
            # Once more with the command that was in force; if that fails too, wait for the person.
            if player.failures > 1:
                player.pause(True)
        case jobs.Imagine():
            player.futures = None
        case jobs.Save(slot=slot):
            player.tell(lambda w: w.unsaved(slot))
