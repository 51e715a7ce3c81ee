"""What scripts and tests read of a Markdown page: its headings with their anchors, and where its links lead."""

from __future__ import annotations

import re
from collections.abc import Iterator

FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> dict[str, str]:
    """Headings of a page, as they are written, with their anchors; one that is there twice gets a number."""
    found: dict[str, str] = {}
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", FENCED.sub("", text), re.MULTILINE):
        anchor, times = slug(heading), sum(slug(other.partition("\0")[0]) == slug(heading) for other in found)
        found[f"{heading}\0{times}" if times else heading] = f"{anchor}-{times}" if times else anchor
    return found


def slug(heading: str) -> str:
    """The anchor that GitHub and `pymdownx.slugs` give a heading: words in lower case, in any script."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")


def links(text: str) -> Iterator[str]:
    """Targets of the links and pictures of a page that lead to no other host."""
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCED.sub("", text))):
        if not re.match(r"[a-z]+:", target):
            yield target
