"""A page of HTML as a browser would show it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._hidden += tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    def loads(self) -> list[str]:
        """What a browser would load or run: tags and attributes that do so."""
        tags = [tag for tag, _ in self.tags if tag in {"script", "img", "link", "iframe", "object", "embed"}]
        names = [name for _, attributes in self.tags for name in attributes]
        return tags + [name for name in names if name.startswith("on") or name in {"src", "srcset"}]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())
