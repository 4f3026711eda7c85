"""Check that every link of the built site to itself leads to a page, and to a place on it.

    python docs/check_links.py FOLDER

Prints the links that do not, and ends with code 1 if there are any. Links to other sites are for
`make linkcheck`, which needs them to be reachable.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the places on it that links may name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what links and names places."""
        given = dict(attrs)
        self.places |= {given[key] or "" for key in ("id", "name") if key in given}
        self.links |= {given[key] or "" for key in ("href", "src") if key in given}


def broken(folder: Path) -> list[str]:
    """``page: link`` of every link that leads nowhere."""
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target.is_file() and (
                target not in pages or unquote(parts.fragment) in pages[target].places
            )
            if not there:
                found.append(f"{path.relative_to(folder.resolve())}: {link}")
    return sorted(found)


if __name__ == "__main__":
    [folder] = sys.argv[1:]
    lost = broken(Path(folder))
    print("\n".join(lost) or "every link of the site to itself leads somewhere")
    sys.exit(bool(lost))
