"""The pages of this repository as a site that needs no network: build/site/index.html.

python scripts/build_site.py            # pip install -e '.[site]' brings what it needs

Pages lie where people look for them in a checkout: README, CONTRIBUTING and others at the top, the rest in docs/. They
are put into one folder, their links with them, and Zensical, the successor of Material for MkDocs, makes the site as
mkdocs.yml says. Any warning, such as a link that leads nowhere, is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
TOP = {
    "README.md": "index.md",
    "README.zh.md": "index.zh.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "licence.md",
}
"""Files at the top of the repository, and their names in the site."""


def main() -> int:
    if find_spec("zensical") is None:
        print("the site needs Zensical, which is not installed: pip install -e '.[site]'", file=sys.stderr)
        return 1
    pages = stage(BUILD / "pages")
    words = ["-m", "zensical", "build", "--clean", "--strict", "--config-file", "mkdocs.yml"]
    if code := subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode:
        return code
    print(f"{pages} pages: {BUILD / 'site' / 'index.html'}")
    return 0


def stage(folder: Path) -> int:
    """Write every page of the site into `folder`, which is made anew; their number."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder)
    for page in folder.rglob("*.md"):
        page.write_text(moved(page.read_text(encoding="utf-8"), ROOT / "docs" / page.relative_to(folder)), "utf-8")
    for name, new in TOP.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        page = moved(text, ROOT / name) if name.endswith(".md") else f"# Licence\n\n```\n{text}```\n"
        (folder / new).write_text(page, "utf-8")
    return len(list(folder.rglob("*.md")))


def moved(text: str, page: Path) -> str:
    """A page's text with its links as they are in the site; `page` is where it lies in the repository."""

    def link(found: re.Match[str]) -> str:
        target, hash_sign, anchor = found[1].partition("#")
        if re.match(r"[a-z]+:", target) or not target:
            return found[0]
        file = (page.parent / target).resolve().relative_to(ROOT)
        place = Path(TOP.get(str(file), file.relative_to("docs") if file.parts[0] == "docs" else file))
        here = page.parent.relative_to(ROOT / "docs") if page.parent != ROOT else Path()
        return f"]({'../' * len(here.parts)}{place.as_posix()}{hash_sign}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", link, text)


if __name__ == "__main__":
    sys.exit(main())
