"""Shared by the training stages: settings, the compiled model and the epoch loop."""
