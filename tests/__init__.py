"""A package of its own, so that no other package's folder called tests is found in its place."""
