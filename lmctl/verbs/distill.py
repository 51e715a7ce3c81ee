"""`lmctl distill`: train a student from a teacher."""

from __future__ import annotations

from omegaconf import DictConfig

from lmctl.verbs import train


def run(cfg: DictConfig) -> None:
    """Train the student."""
    train.run(cfg)
