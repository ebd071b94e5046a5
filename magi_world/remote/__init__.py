"""A world that runs on another machine, behind the interface of `magi_world.World`."""
