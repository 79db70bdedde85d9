"""A piece of HTML, taken apart."""

from base64 import b64decode
from html.parser import HTMLParser


class Page(HTMLParser):
    """The tags, attributes and texts of some HTML; every tag that is opened must be closed."""

    EMPTY = {"rect", "circle", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.tags = []
        self.texts = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def names(self):
        return {tag for tag, _ in self.tags}

    def attributes(self, *names):
        """Return the values of these attributes, of all tags."""
        found = []
        for _, attrs in self.tags:
            found += [value for name, value in attrs.items() if name in names]
        return found

    def images(self):
        """Return the alternative text of each image, and the SVG that it holds."""
        prefix = "data:image/svg+xml;base64,"
        found = {}
        for tag, attrs in self.tags:
            if tag == "img":
                assert attrs["src"].startswith(prefix)
                found[attrs["alt"]] = b64decode(attrs["src"].removeprefix(prefix)).decode()
        return found
