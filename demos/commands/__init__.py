"""The subcommands of `magi-world`: a frozen dataclass each is the options, `run` does it."""
