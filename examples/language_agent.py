"""A language model as an agent: it is told what can be said, and answers with one command.

    MODEL_URL=http://localhost:8000/v1/chat/completions python examples/language_agent.py [WORLD]

Any server that speaks the chat completions interface will do; without one, a stand-in that turns
until the picture is bright answers, so that the example runs anywhere.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from typing import Any

import numpy as np

import magi_world
from magi_world.agents.basic import CallableAgent
from magi_world.envs import MagiWorldEnv


def question(observation: np.ndarray, info: dict[str, Any]) -> str:
    """What the model is asked."""
    left, right = np.array_split(observation[-1].astype(float), 2, axis=1)
    return (
        f"You walk through a video world. The left half of the picture has brightness "
        f"{left.mean():.0f}, the right half {right.mean():.0f}. You were told {info['prompt']!r}. "
        f"Answer with one of these and nothing else: {', '.join(info['commands'])}."
    )


def asked(text: str, commands: tuple[str, ...]) -> str:
    """The model's answer."""
    url = os.environ.get("MODEL_URL")
    if url is None:
        return commands[len(text) % len(commands)]
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 20}
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(json.load(reply)["choices"][0]["message"]["content"])


def act(observation: np.ndarray, info: dict[str, Any]) -> str:
    """The nearest command to what the model said; the first one if it said none of them."""
    said = asked(question(observation, info), info["commands"]).lower()
    return next((c for c in info["commands"] if c.lower() in said), info["commands"][0])


def main(name: str) -> None:
    """Five chunks under its command."""
    env, agent = MagiWorldEnv(name), CallableAgent(act)
    seen, info = env.reset(seed=0)
    for _ in range(5):
        command = agent.act(seen, {**info, "commands": env.commands})
        seen, _, ended, _, info = env.step(command)
        print(f"chunk {info['chunk']}: {command}")
        if ended:
            break


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else magi_world.list_worlds()[0])
