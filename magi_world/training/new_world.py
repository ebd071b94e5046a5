"""A world's configuration as a page that explains itself: what `magi-world new-world` writes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from magi_world.training.propose import Look
from magi_world.training.settings import CLIP, default_sections

BYTES = 3e9  # of a recording, at most
CHUNKS = 24_000  # of a recording that teaches a small world well


def clip_length(lengths: Sequence[int]) -> int:
    """Chunks of a training clip that most episodes have room for, their end not counted."""
    return int(np.clip(np.median(lengths) - 1, 2, CLIP))


def recording_size(look: Look) -> tuple[int, int, int]:
    """(chunks, chunks a shard, held-out shards) of a recording that is large, but not too large."""
    one = look.frames_per_chunk * look.frame_size[0] * look.frame_size[1] * 3
    shard = 1000 if one * 1000 < 2e8 else 500
    chunks = int(min(CHUNKS, BYTES / one) // shard * shard)
    return max(chunks, 4 * shard), shard, 2


def world_yaml(look: Look, name: str) -> str:
    """The configuration of a world called ``name``, with comments.

    Whatever follows from other entries is not in it, so that every entry but ``env`` may be left
    out or changed by itself.
    """
    chunks, shard, held_out = recording_size(look)
    clip = clip_length(look.lengths)
    history = min(4, clip - 1)
    record: dict[str, Any] = {
        "frame_size": list(look.frame_size),
        "frames_per_chunk": look.frames_per_chunk,
        "actions": look.actions,
    }
    sections = default_sections({"record": record, "dynamics": {"history": history}}, name)
    hours = chunks * look.frames_per_chunk * look.step_seconds / 3600
    size = chunks * look.frames_per_chunk * look.frame_size[0] * look.frame_size[1] * 3 / 1e9
    rest = "do nothing" if "do nothing" in look.actions else ""
    out = [
        f"# A world of {look.env}. Try it in ten minutes, then train it in full; both go on from",
        "# where they were stopped:",
        "#   magi-world train-world THIS_FILE --check    whether it can work, what it takes",
        "#   magi-world train-world THIS_FILE --quick",
        "#   magi-world train-world THIS_FILE",
        "# Every entry below may be left out but `env`: it then has its default.",
        f"name: {_flow(name)}",
        _line("fps", look.fps, "frames a second at which the world plays"),
        _line("description", f"{look.env} as a world", "one sentence for those who play it"),
        _line("licence", "", "of the weights: may others use the pictures they learnt from?"),
        f"provenance: {{simulator: {_flow(look.env)}}}",
        _line("default_command", rest, "what is held while nobody says anything"),
        _line("starts", 32, "real moments that are shipped, to begin from"),
        _line("start_chunks", min(3, clip), "the length of each"),
        "",
        "record:",
        f"  env: {_flow(look.env)}",
    ]
    if look.env_options:
        out.append(f"  env_options: {_flow(dict(look.env_options))}")
    where = {"": "'' is render()", ".": "'.' is the observation itself"}
    key = where.get(look.frame_key, "the entry of the observation that is the picture")
    height, width = look.picture
    out += [
        f"  frame_key: {_flow(look.frame_key):<24}# {key}",
        f"  frame_size: {_flow(list(look.frame_size)):<23}# of {height}x{width}; multiples of 16",
        f"  frames_per_chunk: {look.frames_per_chunk:<17}# steps that a command is held",
        f"  chunks: {chunks:<27}# {size:.1f} GB; about {_time(hours)} with one process",
        f"  chunks_per_shard: {shard}",
        f"  held_out_shards: {held_out:<18}# never trained on: figures are measured on them",
        f"  processes: {2:<24}# that record side by side",
        "  # Who plays: random commands, held for a while; magi_world/training/policies.py",
        "  policy: magi_world.training.policies:StickyRandom",
        "  policy_options: {stay: 0.45}       # weights: {COMMAND: how often, usually 1}",
        "  # from: minari:DATASET             # recorded by others; or sb3:AGENT.zip, who",
        "  #                                  # plays instead of the policy",
        *_mirror(look),
    ]
    out += [f"  # {note}." for note in look.notes]
    out.append("  actions:                           # command: the action that is held")
    out += [f"    {_flow(c)}: {_flow(a)}" for c, a in look.actions.items()]
    out += [
        "  # events:                          # numbers of the observation that change",
        "  #   coin: {key: ENTRY, index: 0, change: rise}",
        "",
        "# For each command: keys, ways to say it, and ways kept out of training to measure",
        "# what it understands. 20 good ones of your own are worth more than these.",
        "commands:",
    ]
    for command, words in sections["commands"].items():
        out += [f"  {_flow(command)}:", f"    keys: {_flow(words['keys'])}"]
        out += _wrapped("phrases", words["phrases"]) + _wrapped("held_out", words["held_out"])
    out += ["", "# The models. Larger ones look better and play slower."]
    out += [f"text: {_flow(sections['text'])}", "", "codec:        # pictures to latents and back"]
    out += _section(_own(sections["codec"]), ("vae", "loop", "decoder"))
    out += ["", "dynamics:     # what comes next, and how a command changes it"]
    out += _section(_own(sections["dynamics"]), ("dit", "loop"))
    out += [
        f"  chunks: {clip:<27}# of a clip; episodes seen had {_lengths(look.lengths)} chunks",
        "  copies: 3                          # of a chunk in a step, at other noise levels",
        f"  history: {history:<26}# clean chunks that are remembered",
        "",
        "distill:      # down to a few steps a chunk, so that it plays live",
        *_section(sections["distill"], ("loop", "num_steps")),
        "",
        "heads:        # reward and end of the episode, told from the latents",
        *_section(sections["heads"], ("loop",)),
        f"  events: {_flow(sections['heads']['events'])}",
        "  reward: environment                # or, of what events predicts: {coin: 1.0}",
    ]
    mean, spread = look.rewards
    out += [
        f"  #                                  # of a chunk: {mean:.3g} +- {spread:.3g} so far",
        f"  end: {_flow(sections['heads']['end'])}",
        "",
        "classifier:   # tells the command from a chunk: how the figures are measured",
        *_section(sections["classifier"], ("loop",)),
        "",
        "evaluate: {clips: 24, worlds: 8, seconds: 60.0}",
        "",
        f"sampler: {{num_steps: {sections['sampler']['num_steps']}}}   # a chunk; fewer are faster",
    ]
    return "\n".join(out) + "\n"


# Entries that follow from others, or can be nothing else.
FOLLOWS = {
    "vae": ("patch_length", "video_size", "video_length", "final_proj", "scale_factor"),
    "dit": ("latent_channels", "caption_channels", "caption_length"),
}


def _own(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section without what follows."""
    return {
        name: {k: v for k, v in value.items() if k not in FOLLOWS.get(name, ())}
        if isinstance(value, Mapping)
        else value
        for name, value in section.items()
    }


def _mirror(look: Look) -> list[str]:
    if look.mirrors:
        return [
            "  # Chunks are also trained on as their mirror images, these words swapped. Delete",
            "  # it if a mirrored picture is a false one (text, a map, a sword in the right hand).",
            "  mirror: {left: right}",
        ]
    return [
        "  # mirror: {left: right}            # only if mirrored pictures are as true as real ones"
    ]


def _line(name: str, value: Any, comment: str) -> str:
    return f"{f'{name}: {_flow(value)}':<36} # {comment}"


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=100_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _wrapped(name: str, phrases: Sequence[str]) -> list[str]:
    text = f"    {name}: {_flow(list(phrases))}"
    return textwrap.wrap(
        text, 100, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False
    )


def _section(values: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    out: list[str] = []
    for name in names:
        out += textwrap.wrap(
            f"  {name}: {_flow(values[name])}",
            100,
            subsequent_indent=" " * 8,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return out


def _lengths(lengths: Sequence[int]) -> str:
    low, high = min(lengths), max(lengths)
    return str(low) if low == high else f"{low} to {high}"


def _time(hours: float) -> str:
    if hours < 1 / 30:
        return f"{max(1, round(hours * 3600))} seconds"
    return f"{hours * 60:.0f} minutes" if hours < 1.5 else f"{hours:.1f} hours"
