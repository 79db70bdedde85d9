"""A table, a figure and results.json of what the parts measured."""
import json

from matplotlib.figure import Figure

from .timing import spread


def short(v):
    """Four figures, and no exponent."""
    return f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.4g}"


def text_table(parts):
    """Each part's rows with median, smallest and largest, then its ratios."""
    lines = []
    for key, part in parts.items():
        lines += ["", f"({key}) {part['title']}: {part['note']}", f"    {'median':>10} {'least':>10} {'most':>10}"]
        for name, unit, values in part["rows"]:
            lines.append("    " + " ".join(f"{short(v):>10}" for v in spread(values)) + f"  {unit:9} {name}")
        lines += [f"    {value:>10.3f} {'':21}  {'ratio':9} {name}" for name, value in part["ratios"].items()]
    return "\n".join(lines)


def markdown_table(parts, about):
    """The same for a page: what, median, spread, unit; then where and with what."""
    lines = ["| | median | spread | |", "| --- | ---: | ---: | --- |"]
    for key, part in parts.items():
        lines.append(f"| **({key}) {part['title']}** | | | |")
        for name, unit, values in part["rows"]:
            if name.split(":")[0] not in part["ratios"]:  # those come below, once
                mid, low, high = spread(values)
                lines.append(f"| {name} | {short(mid)} | {short(low)} to {short(high)} | {unit} |")
        lines += [f"| `{name}` | {value:.3f} | | |" for name, value in part["ratios"].items()]
    where = ", ".join(f"{k} {v}" for k, v in (about["machine"] | about["versions"]).items())
    notes = "; ".join(f"({key}) {part['note']}" for key, part in parts.items())
    return "\n".join([*lines, "", f"On {about['digits']}, {about['date']}: {where}. {notes}. {about['repeats']} repetitions, sides timed in turns; ratios are medians over the repetitions."])


def draw(ax, rows, unit):
    """A bar per row and its spread as a line; shares of right answers as points, one for each repetition."""
    mids = [spread(values)[0] for _, values in rows]
    far_apart = unit != "%" and max(mids) > 50 * min(mids)
    for i, (_, values) in enumerate(rows):
        mid, low, high = spread(values)
        if unit == "%":
            ax.plot(values, [i] * len(values), "o", color="0.5", ms=4)
        else:
            ax.barh(i, mid, color="0.8")
            ax.plot([low, high], [i, i], color="black", lw=1.5)
        ax.annotate(short(mid), (high, i), (4, 0), textcoords="offset points", va="center", fontsize=7)
    label = unit + (" right, each repetition a point" if unit == "%" else ", logarithmic" if far_apart else "")
    ax.set(yticks=range(len(rows)), yticklabels=[name for name, _ in rows], ylim=(-.6, len(rows) - .4), xlabel=label, xscale="log" if far_apart else "linear")
    ax.tick_params(labelsize=7)
    ax.xaxis.label.set_size(7)
    ax.invert_yaxis()
    ax.margins(x=.15)


def figure(parts, path):
    """A panel for each unit of a part."""
    panels = {}
    for key, part in parts.items():
        for name, unit, values in part["rows"]:
            panels.setdefault((f"({key}) {part['title']}", unit), []).append((name.split(":")[0], values))
    heights = [len(rows) + 1.6 for rows in panels.values()]
    fig = Figure(figsize=(6, .28 * sum(heights)), layout="constrained")
    axs = fig.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, ((title, unit), rows) in zip(axs, panels.items(), strict=True):
        draw(ax, rows, unit)
        ax.set_title(title, fontsize=8, loc="left")
    fig.savefig(path, dpi=110)


def write_json(parts, about, path):
    """Every repetition, the ratios under their names, versions and machine."""
    ratios = {name: value for part in parts.values() for name, value in part["ratios"].items()}
    told = {key: {"title": part["title"], "note": part["note"], "rows": [{"name": n, "unit": u, "values": v} for n, u, v in part["rows"]]} for key, part in parts.items()}
    path.write_text(json.dumps({"ratios": ratios, **about, "parts": told}, indent=1) + "\n", encoding="utf-8")
