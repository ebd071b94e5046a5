"""What was typed, and what a world does with it: texts in, queues of commands out.

One room above a world's facts (`WorldSpec`) and its text table, below everything that people and
programs talk to. No model of its own, no clock, no chance: the same world, text and state give the
same answer everywhere. docs/words.md is the grammar for people.

    interpreter = world.interpreter                  # or Interpreter(spec, encoder)
    queue = CommandQueue(rest=spec.default_command)  # immutable
    reading = interpreter.read("turn lfet twice, then walk forward for 3 seconds", queue)
    queue = queue.say(reading)                       # not understood: the same queue as before
    command, queue = queue.next()                    # once a chunk: ("turn left", ...)

`Reading` (frozen): ``text`` as typed. ``command`` that the next chunk is made under, None where the
text was not understood. ``confidence`` 0 .. 1, of the least certain part. ``steps`` the whole
meaning, () where not understood. ``answer`` one sentence for people: what was understood, or why
nothing was. ``obeyed``: whether there are steps. ``plain``: whether it is just a name of a command
(sessions need not note it). `Interpreter.threshold`: below it nothing is obeyed.

`Step` (frozen): ``command``, a name of the world; ``chunks`` that it lasts, None for until
something else is said.

`CommandQueue` (frozen): ``say(reading)``, ``next() -> (command, queue)``; ``command`` in force;
``to_come``: the steps after the chunk that `next` was called for last, which are the chips to show
(``chunks`` counts down); ``names``: their commands; ``drop(i)``, ``edit(i, step)``, ``clear()``:
i counts ``to_come``; ``to_record()`` and ``from_record()`` for JSON. When nothing is to come,
`next` gives ``rest``; with ``rest`` None it gives None, and the command in force goes on.

`World.say(text)` does all this for worlds: it keeps a queue for each (``World.queues``,
``set_queue``; in snapshots and forks too) and ``World.step()`` without a command follows it.
``World.step(text)`` gives the text as it is, and ends the queue. The event `Said` of a
session notes what was typed and what became of it.

A world without commands (the released weights) takes every text as it is: one step, confidence 1.
``Interpreter.verbatim(text)`` gives that reading for any world (``strict=False``).

``understood(reading, queue)`` is the dict of ``info["understood"]``: ``{"command": name or None,
"confidence": float, "queue": [names still to come]}``.
"""

from magi_world.language.interpreter import Interpreter
from magi_world.language.queue import CommandQueue, understood
from magi_world.language.reading import Reading, Step

__all__ = ["CommandQueue", "Interpreter", "Reading", "Step", "understood"]
