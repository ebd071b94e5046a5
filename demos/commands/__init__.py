"""The subcommands of `magi-world`, one module each: `add` declares it, `run` does it."""
