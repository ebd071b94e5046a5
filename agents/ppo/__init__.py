"""Policies: trained in a world's dream, or in the simulator, and kept without pickle."""
