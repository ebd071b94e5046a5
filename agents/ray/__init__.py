"""Many worlds over many processes, with Ray: learning with RLlib, datasets of dreams."""
