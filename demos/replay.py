"""Sessions played again and compared with what they were."""

from __future__ import annotations

import sys

from tqdm import tqdm

from magi_world.session.events import Reset, Step
from magi_world.session.replaying import Verdict, verify
from magi_world.session.session import Session
from magi_world.world.world import World


def verify_session(session: Session, world: World, quiet: bool = False) -> Verdict:
    """Replay a session with a progress bar, up to its end or the first difference.

    Raises:
        ValueError: an event that this world cannot perform; the message names its line.
    """
    total = sum(isinstance(event, Reset | Step) for event in session.events)
    with tqdm(total=total, unit="chunk", desc="replay", disable=quiet, file=sys.stderr) as bar:
        for made in verify(session, world):
            if isinstance(made, Verdict):
                return made
            bar.update()
    raise RuntimeError("the comparison gave no verdict")


def verdict_text(verdict: Verdict) -> str:
    """The verdict for people, one fact a line."""
    if verdict.difference is None:
        if not verdict.compared:
            return "nothing to compare: the session holds no checksums"
        return f"identical: {verdict.compared} chunks, byte for byte"
    lines = [f"differs: {verdict.difference}"]
    lines += [f"  {cause}" for cause in verdict.causes]
    if not verdict.causes:
        lines.append("  versions, device and world are the same: the session has been edited")
    return "\n".join(lines)
