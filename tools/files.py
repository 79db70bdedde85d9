"""Files that are written whole or not at all."""

import os
import time
from contextlib import contextmanager, suppress

LEFTOVER_AGE = 3600  # seconds after which an unfinished file belongs to no running program


def _remove_leftovers(path):
    """Remove what killed programs have left of earlier writes to `path`."""
    for left in path.parent.glob(f".{path.stem}.*{path.suffix}"):
        with suppress(OSError):  # another program may have removed it
            is_ours = left.name[len(path.stem) + 2 :].removesuffix(path.suffix).isdecimal()
            if is_ours and time.time() - left.stat().st_mtime > LEFTOVER_AGE:
                left.unlink()


def _put_on_disk(path):
    """Wait until the content of a file is on the disk, and not only on its way there."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def beside(path):
    """Give a new path in the same folder; once the block ends well, that file takes `path`'s place.

    So whoever reads `path`, or is left with it after a crash, has either the old file or the new.
    An OSError says which folder cannot be written, and what to do.
    """
    new = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    _remove_leftovers(path)
    try:
        yield new
        _put_on_disk(new)
        os.replace(new, path)
    except OSError as e:
        told = (
            f"expected to write {path.name} into {path.parent}, got: {e.strerror or e}; free some "
            "space or make the folder writable. The file is as it was"
        )
        raise (OSError(told) if e.errno is None else OSError(e.errno, told)) from e
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def write_whole(path, content):
    """Write text or bytes to `path`, whole or not at all."""
    with beside(path) as new:
        if isinstance(content, bytes):
            new.write_bytes(content)
        else:
            new.write_text(content, encoding="utf-8")
