"""A table, a figure and results.json of what the parts measured."""
import json

from matplotlib.figure import Figure

from .timing import spread


def text_table(parts):
    """Each part's rows with median, smallest and largest, then its ratios."""
    lines = []
    for key, part in parts.items():
        lines += ["", f"({key}) {part['title']}: {part['note']}", f"    {'median':>10} {'least':>10} {'most':>10}"]
        for name, unit, values in part["rows"]:
            lines.append("    " + " ".join(f"{v:>10.4g}" for v in spread(values)) + f"  {unit:9} {name}")
        lines += [f"    {value:>10.3f} {'':21}  {'ratio':9} {name}" for name, value in part["ratios"].items()]
    return "\n".join(lines)


def markdown_table(parts):
    """The same for a page: what, median, spread, unit."""
    lines = ["| | median | spread | |", "| --- | ---: | ---: | --- |"]
    for part in parts.values():
        for name, unit, values in part["rows"]:
            mid, low, high = spread(values)
            lines.append(f"| {name} | {mid:.4g} | {low:.4g} to {high:.4g} | {unit} |")
        lines += [f"| `{name}` | {value:.3f} | | |" for name, value in part["ratios"].items()]
    return "\n".join(lines)


def figure(parts, path):
    """A bar per row, its spread as a line; a panel per unit of a part."""
    panels = {}
    for key, part in parts.items():
        for name, unit, values in part["rows"]:
            panels.setdefault((key, part["title"], unit), []).append((name.split(":")[0], values))
    heights = [len(rows) + 1.6 for rows in panels.values()]
    fig = Figure(figsize=(6, .28 * sum(heights)), layout="constrained")
    axs = fig.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, ((key, title, unit), rows) in zip(axs, panels.items(), strict=True):
        for i, (name, values) in enumerate(rows):
            mid, low, high = spread(values)
            ax.barh(i, mid, color="0.75")
            ax.plot([low, high], [i, i], color="black", lw=1.5)
            ax.text(mid, i, f" {mid:.4g}", va="center", fontsize=7)
        ax.set(yticks=range(len(rows)), yticklabels=[name for name, _ in rows], xlabel=unit)
        ax.set_title(f"({key}) {title}", fontsize=8, loc="left")
        ax.tick_params(labelsize=7)
        ax.xaxis.label.set_size(7)
        ax.invert_yaxis()
        ax.margins(x=.12)
    fig.savefig(path, dpi=110)


def write_json(parts, about, path):
    """Every repetition, the ratios under their names, versions and machine."""
    ratios = {name: value for part in parts.values() for name, value in part["ratios"].items()}
    told = {key: {"title": part["title"], "note": part["note"], "rows": [{"name": n, "unit": u, "values": v} for n, u, v in part["rows"]]} for key, part in parts.items()}
    path.write_text(json.dumps({"ratios": ratios, **about, "parts": told}, indent=1) + "\n", encoding="utf-8")
