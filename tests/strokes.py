"""Digits as strokes, and how they are drawn on a page."""

import numpy as np


def arc(center, radii, start, end, n=24):
    """Return points of a part of an ellipse; degrees go clockwise from the right."""
    angles = np.radians(np.linspace(start, end, n))
    (x, y), (across, down) = center, radii
    return [(x + across * np.cos(a), y + down * np.sin(a)) for a in angles]


# Strokes on a pad from 0 to 1
ONE = [(0.58, 0.15), (0.42, 0.85)]
SEVEN = [(0.25, 0.15), (0.75, 0.15), (0.42, 0.88)]
ZERO = arc((0.5, 0.5), (0.24, 0.36), -90, 270)
THREE = arc((0.45, 0.32), (0.22, 0.18), -150, 90) + arc((0.45, 0.69), (0.25, 0.19), -90, 150)
DIGITS = {"1": ONE, "7": SEVEN, "0": ZERO, "3": THREE}


def placed(points, x, scale):
    """Return points, smaller, around another place."""
    return [(x + scale * (px - 0.5), 0.5 + scale * (py - 0.5)) for px, py in points]


def draw_on(page, pad, *strokes, pointer="mouse"):
    """Draw strokes on a pad, each with points close together as a hand makes them."""
    page.run("document.querySelector(arguments[0]).scrollIntoView({ block: 'nearest' })", pad)
    box = page.box(pad)
    for stroke in strokes:
        ends = np.array(stroke)
        shares = np.linspace(0, len(ends) - 1, 16)
        close = np.stack([np.interp(shares, range(len(ends)), axis) for axis in ends.T], 1)
        page.stroke(
            [(box["left"] + box["width"] * x, box["top"] + box["width"] * y) for x, y in close],
            pointer,
        )
