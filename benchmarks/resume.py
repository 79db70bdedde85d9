"""Going on from the results that an earlier run of a benchmark has written."""

import json


def read_results(path):
    """Return the results in a file; SystemExit if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise SystemExit(
            f"expected results in {path}, got a damaged file ({e}): remove it"
        ) from None


def earlier_results(
    args,  # with `resume` and `out`, the file
    settings: dict,  # what the scores depend on
) -> dict | None:
    """Return the results that --out holds; None without --resume, and without a file.

    SystemExit if the file is damaged, or holds runs with other settings.
    """
    if not (args.resume and args.out.exists()):
        return None
    earlier = read_results(args.out)
    if earlier["settings"] != settings:
        raise SystemExit(f"{args.out.name} holds runs with other settings: leave out --resume")
    return earlier
