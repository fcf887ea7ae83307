"""Check that the internal links of the built pages and of the README resolve.

    python scripts/check_links.py build/site

Nothing is downloaded. Pages must not load scripts, styles, fonts or pictures from other hosts, so
these are reported as well.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

README = Path(__file__).parent.parent / "README.md"
_LOADED = {"img", "script", "iframe", "source", "video", "audio"}
_LOADED_RELATIONS = {
    "stylesheet",
    "icon",
    "preload",
    "preconnect",
    "dns-prefetch",
    "modulepreload",
}
_REMOTE_STYLE = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")]+)")
_MARKDOWN_LINK = re.compile(r"\]\(([^)\s]+)\)")


class _Page(HTMLParser):
    """The anchors, links and loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.targets |= {found[name] for name in ("id", "name") if name in found}
        relations = set(found.get("rel", "").split())
        if "src" in found and tag in _LOADED:
            self.loaded.append(found["src"])
        elif "href" in found and tag == "link" and relations & _LOADED_RELATIONS:
            self.loaded.append(found["href"])
        elif "href" in found and tag == "a":
            self.links.append(found["href"])


def faults_of_site(site: Path) -> list[str]:
    """Return one line per broken link and per file that is loaded from another host."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    faults = [] if pages else [f"{site} has no pages"]
    for path, page in pages.items():
        name = path.relative_to(site)
        faults += [f"{name} loads {url}" for url in page.loaded if _is_remote(url)]
        for link in page.links + [url for url in page.loaded if not _is_remote(url)]:
            if reason := _fault(link, path, site, pages):
                faults.append(f"{name}: {link} {reason}")
    for path in site.rglob("*.css"):
        found = _REMOTE_STYLE.findall(path.read_text(encoding="utf-8"))
        faults += [f"{path.relative_to(site)} loads {url}" for url in found]
    return faults


def faults_of_markdown(path: Path) -> list[str]:
    """Return one line per broken relative link of a Markdown file."""
    links = _MARKDOWN_LINK.findall(path.read_text(encoding="utf-8"))
    local = [link for link in links if not _is_remote(link) and not link.startswith("#")]
    missing = [link for link in local if not (path.parent / urlsplit(link).path).exists()]
    return [f"{path.name}: {link} does not exist" for link in missing]


def _is_remote(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "mailto", "data")


def _fault(link: str, path: Path, site: Path, pages: dict[Path, _Page]) -> str:
    """Return why a link is broken, or an empty string."""
    if _is_remote(link) or path.name == "404.html":  # 404.html is served for any address
        return ""
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site.resolve()) or not target.is_file():
        return "does not exist"
    page = next((page for at, page in pages.items() if at.resolve() == target), None)
    fragment = unquote(parts.fragment)
    if page is None or not fragment or fragment in page.targets:
        return ""
    return "has no such section"


def main() -> int:
    """Check the site at the first argument, and the README."""
    faults = faults_of_site(Path(sys.argv[1])) + faults_of_markdown(README)
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
