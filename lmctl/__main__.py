"""`python -m lmctl`, `torchrun ... -m lmctl` and `accelerate launch -m lmctl` all start here."""

from lmctl.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
