"""Pages: every link leads somewhere, every page is in the site's navigation, and the site is built without warnings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import CHROMIUM, Browser, browser
from command import ROOT

sys.path.append(str(ROOT / "scripts"))

from build_site import TOP, stage
from markdown_pages import anchors, links, slug

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=lambda page: page.relative_to(ROOT).as_posix())
"""All pages of this repository, where they lie in it."""
FOUND = """(() => {
  const texts = [], walk = (root) => { for (const element of root.querySelectorAll("*")) {
    if (element.shadowRoot) walk(element.shadowRoot);
    if (root !== document && element.tagName === "A") texts.push(element.href); } };
  walk(document);
  return texts;
})()"""
"""Links of the list of search results, which is in a shadow tree."""
NAMED = re.compile(r"(?<![\w/.])(?:conf|docs|lmctl|scripts|tests)/[\w/.-]+\.(?:md|py|sh|yaml)\b")
MADE_UP = {"lmctl/schedule/inverse_sqrt.py", "conf/schedule/inverse_sqrt.yaml"}
"""Files that a page has its reader write."""


def dead_links(page: Path) -> list[str]:
    """Links of a page to files that are not there, and to headings that their page has not."""
    dead = []
    for target in links(page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8")).values()):
            dead.append(target)
    return dead


def named(entries: Any) -> list[str]:
    """Pages that the navigation names, in its order."""
    if isinstance(entries, str):
        return [entries]
    inner = entries.values() if isinstance(entries, dict) else entries
    return [page for entry in inner for page in named(entry)]


def navigation() -> list[str]:
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    return named(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), loader)["nav"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path):
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path):
    (tmp_path / "other.md").write_text(
        "# Other\n\n## 中文, and `code`\n\n```sh\n# comment\n```\n\n## Twice\n\n## Twice\n"
    )
    page = tmp_path / "page.md"
    live = ("other.md#中文-and-code", "other.md#twice-1", "https://example.org/x", "#here")
    dead = ("other.md#comment", "none.md", "other.md#twice-2")
    page.write_text("# Here\n" + "".join(f"[x]({target})\n" for target in (*live, *dead)) + "`[x](y)`\n")
    assert dead_links(page) == list(dead)


def test_files_that_are_named_are_there():
    """In pages, and in comments of the program: a file that was moved is named by its new place."""
    texts = [*PAGES, *(ROOT / "lmctl").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
    found = [(file, name) for file in texts for name in NAMED.findall(file.read_text(encoding="utf-8"))]
    assert len(found) > 100
    real = [(file, name) for file, name in found if name not in MADE_UP and Path(name).stem not in ("x", "VERB")]
    assert [(file.name, name) for file, name in real if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_navigation_once(tmp_path: Path):
    stage(tmp_path / "pages")
    made = sorted(page.relative_to(tmp_path / "pages").as_posix() for page in (tmp_path / "pages").rglob("*.md"))
    assert sorted(navigation()) == made
    assert {page.name for page in ROOT.glob("*.md")} <= TOP.keys()


def test_links_lead_to_the_same_pages_in_the_site(tmp_path: Path):
    """There all pages lie in one folder, README as its index."""
    stage(tmp_path / "pages")
    for page in (tmp_path / "pages").rglob("*.md"):
        assert dead_links(page) == [], page


def test_an_anchor_is_what_the_site_makes():
    slugs = pytest.importorskip("pymdownx.slugs")
    made = slugs.slugify(case="lower")
    for page in PAGES:
        for heading in anchors(page.read_text(encoding="utf-8")):
            shown = heading.partition("\0")[0].replace("`", "")
            assert slug(heading.partition("\0")[0]) == made(shown, "-"), heading


@pytest.mark.slow
@pytest.mark.skipif(find_spec("zensical") is None, reason="pip install -e '.[site]'")
def test_the_site_is_built_without_a_warning_and_works_without_a_network(tmp_path: Path):
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    shutil.copytree(ROOT / "docs", checkout / "docs")
    for file in (*TOP, "mkdocs.yml", "scripts/build_site.py"):
        shutil.copy(ROOT / file, checkout / file)
    build = [sys.executable, str(checkout / "scripts" / "build_site.py")]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = checkout / "build" / "site"
    assert {page.with_suffix(".html").as_posix() for page in map(Path, navigation())} <= {
        page.relative_to(site).as_posix() for page in site.rglob("*.html")
    }
    if CHROMIUM is not None:
        with browser(tmp_path / "profile") as tab:
            for page, word, result in (
                ("index.html", "PowerSGD", "compression.html"),
                ("reference/index.html", "蒸馏", "index.zh.html"),
                ("index.zh.html", "教师", "index.zh.html"),
            ):
                search(tab, site / page, word)
                tab.wait(f"{FOUND}.some((link) => link.includes({result!r}))")
            assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
            assert tab.complaints == []
    (checkout / "docs" / "data.md").open("a").write("\n[nowhere](nowhere.md)\n")
    assert subprocess.run(build, capture_output=True, check=False).returncode == 1


def search(tab: Browser, page: Path, word: str) -> None:
    """Type a word into the site's search, as a person would."""
    tab.navigate(f"file://{page}")
    tab.wait("document.querySelector('.md-search__button') !== null")
    tab.run("document.querySelector('.md-search__button').click()")
    time.sleep(1)  # its field takes the focus when it has been drawn
    tab.call("Input.insertText", text=word)
