"""Tutti: distributed training and batch generation for music."""

__version__ = "0.1.0"
