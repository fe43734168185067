"""Frames, windows, videos, and a person at the keyboard."""
