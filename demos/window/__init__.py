"""The parts of the window: a model of playing that knows no pygame, and thin drawing on top."""
