"""A table, a figure and results.json of what the parts measured."""

import json

from matplotlib.figure import Figure

from tools.files import beside, write_whole

from .goals import goal_and_outcome
from .resume import read_results
from .timing import spread


def short(value):
    """Return a number as four digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def with_goal(line, name, value):
    """Return the line with the goal of what it shows, where there is one."""
    outcome = goal_and_outcome(name, value)
    return f"{line} ({outcome})" if outcome else line


def text_table(parts):
    """Return each part's rows with median, smallest and largest value, then its ratios."""
    lines = []
    for key, part in parts.items():
        lines += ["", f"({key}) {part['title']}: {part['note']}"]
        lines.append(f"    {'median':>10} {'least':>10} {'most':>10}")
        for name, unit, values in part["rows"]:
            middle, low, high = spread(values)
            numbers = " ".join(f"{short(v):>10}" for v in (middle, low, high))
            lines.append(with_goal(f"    {numbers}  {unit:9} {name}", name, middle))
        for name, value in part["ratios"].items():
            line = f"    {value:>10.3f} {'':21}  {'ratio':9} {name}"
            lines.append(with_goal(line, name, value))
    return "\n".join(lines)


def markdown_table(parts, about):
    """Return the same for a page: what, median, spread, unit, goal; then where and with what."""
    lines = ["| | median | spread | | goal |", "| --- | ---: | ---: | --- | --- |"]
    for key, part in parts.items():
        lines.append(f"| **({key}) {part['title']}** | | | | |")
        for name, unit, values in part["rows"]:
            if name.partition(":")[0] in part["ratios"]:
                continue  # it comes below, once
            middle, low, high = spread(values)
            numbers = f"{short(middle)} | {short(low)} to {short(high)}"
            outcome = goal_and_outcome(name, middle)
            lines.append(f"| {name} | {numbers} | {unit} | {outcome} |")
        for name, value in part["ratios"].items():
            outcome = goal_and_outcome(name, value)
            lines.append(f"| `{name}` | {value:.3f} | | | {outcome} |")
    facts = about["machine"] | about["versions"]
    where = ", ".join(f"{name} {value}" for name, value in facts.items())
    notes = "; ".join(f"({key}) {part['note']}" for key, part in parts.items())
    lines += [
        "",
        f"On {about['digits']}, {about['date']}: {where}. {notes}. {about['repeats']} repetitions, "
        "sides timed in turns; ratios are medians over the repetitions.",
    ]
    return "\n".join(lines)


def draw(ax, rows, unit):
    """Draw a bar per row, with its spread as a line; shares as points, one per repetition."""
    is_share = unit == "%"
    medians = [spread(values)[0] for _, values in rows]
    far_apart = not is_share and max(medians) > 50 * min(medians)
    for i, (_, values) in enumerate(rows):
        middle, low, high = spread(values)
        if is_share:
            ax.plot(values, [i] * len(values), "o", color="0.5", ms=4)
        else:
            ax.barh(i, middle, color="0.8")
            ax.plot([low, high], [i, i], color="black", lw=1.5)
        place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(short(middle), (high, i), fontsize=7, **place)
    label = unit
    if is_share:
        label += " right, each repetition a point"
    elif far_apart:
        label += ", logarithmic"
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlabel(label, fontsize=7)
    ax.set_xscale("log" if far_apart else "linear")
    ax.tick_params(labelsize=7)
    ax.invert_yaxis()
    ax.margins(x=0.15)


def figure(parts, path):
    """Write a picture with a panel for each unit of a part."""
    panels = {}
    for key, part in parts.items():
        for name, unit, values in part["rows"]:
            rows = panels.setdefault((f"({key}) {part['title']}", unit), [])
            rows.append((name.partition(":")[0], values))
    heights = [len(rows) + 1.6 for rows in panels.values()]
    fig = Figure(figsize=(6, 0.28 * sum(heights)), layout="constrained")
    axs = fig.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, ((title, unit), rows) in zip(axs, panels.items(), strict=True):
        draw(ax, rows, unit)
        ax.set_title(title, fontsize=8, loc="left")
    with beside(path) as new:
        fig.savefig(new, dpi=110)


def write_json(parts, about, path):
    """Write every repetition, the ratios under their names, versions and machine."""
    ratios = {}
    told = {}
    for key, part in parts.items():
        ratios |= part["ratios"]
        rows = [{"name": name, "unit": unit, "values": v} for name, unit, v in part["rows"]]
        told[key] = {**part, "rows": rows}
    results = {"ratios": ratios, **about, "parts": told}
    write_whole(path, json.dumps(results, indent=1) + "\n")


def read_json(path, about):
    """Return the parts that an earlier run wrote; SystemExit if it measured something else."""
    earlier = read_results(path)
    for name in ("digits", "quick", "repeats", "machine", "versions"):
        if earlier[name] != about[name]:
            raise SystemExit(
                f"expected an earlier run with the same {name} in {path.parent.name}/, "
                f"got {earlier[name]} there and {about[name]} here: measure all parts again"
            )
    for part in earlier["parts"].values():
        part["rows"] = [(row["name"], row["unit"], row["values"]) for row in part["rows"]]
    return earlier["parts"]
