"""Files that are written whole or not at all."""

import os
from contextlib import contextmanager


@contextmanager
def beside(path):
    """Give a new path in the same folder; once the block ends well, that file takes `path`'s place.

    So whoever reads `path`, or is left with it after a crash, has either the old file or the new.
    """
    new = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield new
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_whole(path, content):
    """Write text or bytes to `path`, whole or not at all."""
    with beside(path) as new:
        if isinstance(content, bytes):
            new.write_bytes(content)
        else:
            new.write_text(content, encoding="utf-8")
