"""OpenEnv's own client plays: run by the Python in which the package openenv is installed.

    python openenv_client.py http://127.0.0.1:8765

It needs nothing of ours. What came back is printed, one JSON list.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from openenv.core.generic_client import GenericEnvClient


def main(url: str) -> list[Any]:
    """An episode of three chunks, and what is wrong told by the client's own exceptions."""
    seen: list[Any] = []
    with GenericEnvClient(base_url=url).sync() as env:
        results = [env.reset(seed=5, max_chunks=3)]
        results += [env.step({"text": text}) for text in ("turn lfet", "open the fridge")]
        seen.append(env.state())
        results.append(env.step({"text": ""}))
        seen += [[r.observation, r.reward, r.done] for r in results]
        for action in ({"text": "turn left"}, {"text": 3}):
            try:
                env.step(action)
            except RuntimeError as error:
                seen.append(str(error))
        again = env.reset(seed=5)
        seen.append([again.observation, again.reward, again.done])
    return seen


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
