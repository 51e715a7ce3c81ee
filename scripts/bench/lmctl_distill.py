"""lmctl's side of distill.py: the plan that `lmctl distill` would make, and the runner's own steps."""

from __future__ import annotations

from common import side_arguments
from lmctl_mlm import train

if __name__ == "__main__":
    args = side_arguments(__doc__)
    train(args, "distill", "model.layers=2", f"teacher={args.work / 'teacher'}")
