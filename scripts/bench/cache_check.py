"""Time to open a cache entry: with its checksums computed, and with the stamp of an earlier check.

python scripts/bench/cache_check.py --megabytes 1000
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from lmctl.core.cache import cached


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--megabytes", type=int, default=1000)
    megabytes = options.parse_args().megabytes

    def make(folder: Path) -> None:
        with open(folder / "tokens.bin", "wb") as out:
            for _ in range(megabytes):
                out.write(os.urandom(1_000_000))

    with tempfile.TemporaryDirectory() as folder:

        def opened(what: str) -> None:
            began = time.perf_counter()
            cached(Path(folder), "tokens", {}, make, Path, print)
            print(f"{what:<32} {1000 * (time.perf_counter() - began):>9,.1f} ms")

        opened(f"built, {megabytes:,} MB")
        opened("opened, checked before")
        for stamp in Path(folder).glob("tokens/*.checked"):
            stamp.unlink()
        opened("opened, checksums computed")


if __name__ == "__main__":
    main()
