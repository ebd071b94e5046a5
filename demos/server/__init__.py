"""`magi-world serve`: the worlds of many visitors in one batch, for browsers and for programs."""
