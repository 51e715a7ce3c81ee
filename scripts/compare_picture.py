"""A picture of a page of `lmctl compare`, from its top to the end of its learning curves, as it is in the README.

    python scripts/compare_picture.py runs/twelve/compare.html docs/images/compare.png

Chromium draws it, driven as in the tests of the page.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))

from browser import browser

WIDTH = 1040


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("page", type=Path)
    options.add_argument("picture", type=Path)
    options.add_argument("--theme", choices=("light", "dark"), default="light")
    options.add_argument("--through", default="curves", help="the id of the last part that is shown")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmctl-picture-") as profile, browser(Path(profile)) as tab:
        tab.open(f"{given.page.resolve().as_uri()}#theme={given.theme}")
        tab.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=900, deviceScaleFactor=1, mobile=False)
        time.sleep(1)  # the page draws its plots anew, after it has been told of its width
        height = tab.run(f"document.getElementById('{given.through}').getBoundingClientRect().bottom + scrollY + 16")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
        shot = tab.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
    given.picture.write_bytes(base64.b64decode(shot))


if __name__ == "__main__":
    main()
