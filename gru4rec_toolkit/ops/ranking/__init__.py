"""Ranks of targets."""
