"""The small parts of the tools: order, headings, directives, tidy outputs, files, the README."""

import base64
import io
import os
import re

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell as code
from nbformat.v4 import new_markdown_cell as md
from nbformat.v4 import new_notebook, new_output
from PIL import Image

from conftest import ROOT, run
from tools.files import beside, write_whole
from tools.notebooks import (
    heading_above,
    headings,
    reader_view,
    reading_order,
    split_directives,
    title,
)
from tools.outputs import markdown_table, tidy
from tools.readme import main, relink, render

BAR = '<div><progress max="3" value="3"></progress> 100.00% [3/3 00:00&lt;00:00]</div>'
TABLE = (
    "<div><table><thead><tr><th>epoch</th><th>loss</th></tr></thead>"
    "<tbody><tr><td>0</td><td>0.5</td></tr></tbody></table></div>"
)


def shown(*outputs):
    cell = code("x", outputs=list(outputs))
    return tidy(new_notebook(cells=[cell])).cells[0].outputs


def display(**data):
    return new_output("display_data", {k.replace("_", "/"): v for k, v in data.items()})


def stream(text, name="stdout"):
    return new_output("stream", text=text, name=name)


def test_headings_skip_fences_and_are_found_above():
    cells = [md("# A `b`"), md("## C\n```\n# no\n```"), code("x"), md("## D"), code("y")]
    nb = new_notebook(cells=cells)
    assert headings(nb.cells[1].source) == ["C"]
    assert title(nb, "none") == "A b"
    assert [heading_above(nb, i) for i in (2, 4)] == ["C", "D"]
    assert heading_above(nb, 0) == "(no heading above)"


def touch(folder, *names):
    for name in names:
        path = folder / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_reading_order_is_the_list_then_the_names(tmp_path):
    touch(tmp_path, "09_z", "reference/losses", "01_x", "index", "_no", "02_labels")
    touch(tmp_path, ".ipynb_checkpoints/a", "reference/.ipynb_checkpoints/b", "_build/c")
    touch(tmp_path, "reference/checks")
    found = [p.relative_to(tmp_path).with_suffix("").as_posix() for p in reading_order(tmp_path)]
    listed = ["index", "02_labels", "reference/checks", "reference/losses"]
    assert found == [*listed, "01_x", "09_z"]


def test_two_notebooks_of_one_name_are_refused(tmp_path):
    touch(tmp_path, "head", "reference/head")
    with pytest.raises(ValueError, match="two notebooks are called head"):
        reading_order(tmp_path)


def test_directives_are_taken_off_and_obeyed():
    source = "#| export\n#|code-fold: true\nx = 1\n#| not a directive here"
    directives, rest = split_directives(code(source))
    assert directives == {"export": "", "code-fold": ""}
    assert rest == "x = 1\n#| not a directive here"
    sources = [
        "#| hide\nx",
        "#| default_exp a",
        "#| export\nf",
        "#| echo: false\ng",
        "#| code-fold: true\nh",
        "#| code-fold: false\ni",
        "#| include: false\nj",
        "#| export head\nk",
    ]
    nb = reader_view(new_notebook(cells=[md("#| no"), *map(code, sources)]))
    assert [c.source for c in nb.cells] == ["#| no", "f", "g", "h", "i", "k"]
    tags = [c.metadata.get("tags", []) for c in nb.cells]
    assert tags == [[], ["exported"], ["remove-input"], ["hide-input"], [], ["exported"]]
    assert nb.cells[2].metadata.transient.remove_source


def test_folds_and_figures_are_labeled():
    solution = code("#| code-fold: true\nx", metadata={"tags": ["solution"]})
    figure = code('#| alt: A "7": almost a 1.\nplot()')
    nb = reader_view(new_notebook(cells=[md("## Seven"), solution, figure]))
    labels = [c.metadata.mystnb for c in nb.cells[1:]]
    assert [label.code_prompt_show for label in labels] == ["Solution", "Show the code"]
    assert [label.image.alt for label in labels] == ["Seven", 'A "7": almost a 1.']
    assert nb.cells[2].source == "plot()"


def test_hidden_outputs_are_not_shown():
    cells = [
        code(f"#| {directive}\nx", outputs=[stream("a")])
        for directive in ("output: false", "hide_output", "eval: true")
    ]
    nb = new_notebook(cells=cells)
    assert [len(c.outputs) for c in reader_view(nb).cells] == [0, 0, 1]
    assert [len(c.outputs) for c in nb.cells] == [1, 1, 1], "the notebook itself stays"


def test_the_state_of_widgets_is_dropped():
    nb = new_notebook(cells=[code("x")], metadata={"widgets": {"state": {}}})
    assert "widgets" not in tidy(nb).metadata


def test_bars_and_empty_displays_go():
    widget = {"text/plain": "0%|", "application/vnd.jupyter.widget-view+json": {}}
    assert not shown(
        display(text_html=BAR, text_plain=BAR, text_markdown=BAR),
        display(text_html="<style>p{}</style>"),
        display(text_html="<div></div>"),
        display(text_html="", text_plain="<IPython.core.display.HTML object>"),
        stream("\r 10%|# |\r100%|##|", name="stderr"),
        new_output("display_data", widget),
    )


def test_a_table_keeps_one_twin_in_text():
    (out,) = shown(display(text_html=TABLE, text_plain=TABLE, text_markdown="```html```"))
    assert out.data == {"text/html": TABLE, "text/plain": markdown_table(TABLE)}
    (out,) = shown(display(text_html=TABLE))
    assert out.data["text/plain"].startswith("| ")
    (out,) = shown(display(text_html=TABLE, text_plain="epoch loss"))
    assert set(out.data) == {"text/html", "text/plain"}
    plain = "<IPython.core.display.Markdown object>"
    (out,) = shown(display(text_markdown="*a*", text_plain=plain))
    assert out.data["text/markdown"] == "*a*"


def as_png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode() + "\n"


def as_pixels(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"))


def test_figures_get_a_palette():
    rng = np.random.default_rng(0)
    grays = np.repeat(rng.integers(0, 256, (60, 80, 1), dtype="uint8"), 4, 2)
    grays[..., 3] = 255  # a figure of 256 grays, as matplotlib saves it: red, green, blue, alpha
    (out,) = shown(display(image_png=as_png(grays)))
    assert len(out.data["image/png"]) < 0.7 * len(as_png(grays))
    assert (as_pixels(out.data["image/png"]) == grays).all(), "and no pixel changes"
    grays[0, 0, 3] = 0
    (out,) = shown(display(image_png=as_png(grays)))
    assert out.data["image/png"] == as_png(grays), "transparent pixels stay transparent"


def test_streams_are_joined_and_pictures_kept():
    dot = as_png(np.full((1, 1, 4), 255, "uint8"))
    data = {"image/png": dot, "text/plain": "<Figure>"}
    size = {"image/png": {"width": 20, "height": 10}}
    png = new_output("display_data", data, metadata=size | {"needs_background": "light"})
    first, second = shown(stream("a\rb"), display(text_html=BAR), stream("c\n"), png)
    assert first.text == "bc\n"
    assert (as_pixels(second.data["image/png"]) == 255).all() and second.metadata == size


def test_no_carriage_return_is_left():
    (out,) = shown(stream("a\r\nb\r"), stream("\n10%|#|\rc\n"))
    assert out.text == "a\nb\nc\n"


TRACEBACK = [
    "\x1b[36mCell\x1b[39m \x1b[32mIn[7]\x1b[39m, line 1\n----> 1 loss(x)",
    "File \x1b[32m/home/ann/my code/site-packages/torch/a.py:9\x1b[39m, in f(x)\n  9 g",
    "File ~/.pyenv/lib/python3.12/json/b.py:2, in g()\n2 h",
    "File /srv/clone/multilabel_mnist/mismatch/c.py:3, in h()\n3 raise",
    "\x1b[31mValueError\x1b[39m: no\nFile",
]


def test_the_traceback_of_a_lesson_belongs_to_no_machine():
    def cell(**metadata):
        error = new_output("error", ename="ValueError", evalue="no", traceback=TRACEBACK)
        return code("loss(x)", outputs=[error], metadata=metadata)

    cells = [cell(tags=["raises-exception"]), cell()]
    shown, full = tidy(new_notebook(cells=cells)).cells
    assert shown.outputs[0].traceback == [
        "Cell, line 1\n----> 1 loss(x)",
        "File torch/a.py:9, in f(x)",
        "File json/b.py:2, in g()",
        "File multilabel_mnist/mismatch/c.py:3, in h()",
        "ValueError: no\nFile",
    ]
    assert full.outputs[0].traceback == TRACEBACK, "an error that nobody expected is shown in full"


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with pytest.raises(ZeroDivisionError), beside(path) as new:
        new.write_text("half of the n", encoding="utf-8")
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "old"
    write_whole(path, b"new")
    assert path.read_text(encoding="utf-8") == "new" and list(tmp_path.iterdir()) == [path]


def test_links_of_the_readme():
    text = (
        "[a](02_labels.ipynb#X) [b](../LICENSE) [c](https://x.y/z) ![d](images/p.png) "
        "[e](#What-now) [f](reference/checks.ipynb)"
    )
    assert relink(text) == (
        "[a](nbs/02_labels.ipynb#X) [b](LICENSE) [c](https://x.y/z) ![d](nbs/images/p.png) "
        "[e](#what-now) [f](nbs/reference/checks.ipynb)"
    )
    assert relink("`[a](b)` [a](b)\n```\n[a](b)\n```") == "`[a](b)` [a](nbs/b)\n```\n[a](b)\n```"


def test_tables_become_markdown():
    html = (
        "<table><thead><tr><th></th><th>a</th></tr><tr><th>row</th><th></th></tr></thead>"
        "<tbody><tr><th>x|y</th><td>1.5</td></tr><tr><th>&lt;z&gt;</th><td>2</td></tr></tbody>"
        "</table>"
    )
    assert markdown_table(html) == "| row | a |\n| --- | ---: |\n| x\\|y | 1.5 |\n| &lt;z> | 2 |"
    assert markdown_table("<p>no</p>") is None
    assert markdown_table("<table></table>") is None
    head_alone = "<table><tr><th>a</th><th>b</th></tr></table>"
    assert markdown_table(head_alone) == "| a | b |\n| --- | --- |"


def test_readme_is_rendered_with_its_pictures(tmp_path):
    sharp = display(image_png="aG8=")
    sharp.metadata["image/png"] = {"width": 20, "height": 10}
    nb = new_notebook(
        cells=[
            md("# T\n\n[a](01_x.ipynb)"),
            code("#| hide\nhidden"),
            code("plot()", outputs=[display(image_png="aGk=")]),
            code('#| alt: Two "bars".\nplot(2)', outputs=[sharp]),
            code("print(1)", outputs=[stream("\x1b[31m1\n\n\n2\x1b[0m\n")]),
            code("df", outputs=[display(text_html=TABLE)]),
        ]
    )
    images = tmp_path / "nbs/images"
    images.mkdir(parents=True)
    (images / "index_9.png").touch()
    nbformat.write(nb, tmp_path / "nbs/index.ipynb")
    main(tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    for piece in (
        "[a](nbs/01_x.ipynb)",
        "```python\nplot()\n```",
        "![T](nbs/images/index_1.png)",
        '<img src="nbs/images/index_2.png" alt="Two &quot;bars&quot;." width="20">',
        "```text\n1\n\n\n2\n```",
        "| epoch | loss |\n| ---: | ---: |\n| 0 | 0.5 |",
    ):
        assert piece in text
    assert "hidden" not in text and "#|" not in text
    assert sorted(p.name for p in images.iterdir()) == ["index_1.png", "index_2.png"]
    assert (images / "index_1.png").read_bytes() == b"hi"


def test_readme_shows_an_error_as_text(tmp_path):
    error = new_output(
        "error", ename="E", evalue="v", traceback=["File a.py", "\x1b[31mE: v\x1b[0m"]
    )
    nbformat.write(new_notebook(cells=[code("x", outputs=[error])]), tmp_path / "index.ipynb")
    assert "```text\nFile a.py\nE: v\n```" in render(tmp_path / "index.ipynb")[0]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Return a function that runs make and returns what Python got: its words and its source."""
    folder = tmp_path_factory.mktemp("make")
    python = folder / "python"
    python.write_text(
        '#!/bin/sh\nprintf "%s|" "$@" "source=$MULTILABEL_MNIST_SOURCE"\n', encoding="utf-8"
    )
    python.chmod(0o755)

    def said(*words):
        # `make lab` names Python from a folder below.
        command = ["make", "-C", ROOT, "-o", ".venv/.ready", f"PY={os.path.relpath(python, ROOT)}"]
        if words[0] == "lab":
            command[-1] = f"PY={os.path.relpath(python, ROOT / 'nbs').removeprefix('../')}"
        env = {"MULTILABEL_MNIST_SOURCE": ""}
        return run(*command, "--no-print-directory", *words, **env).stdout.split("|")[:-1]

    return said


@pytest.mark.parametrize(
    "words, command",
    [
        (["course"], "-m tools.course --source embedded"),
        (["course", "SOURCE=mnist", "NB=02_labels checks"], "--source mnist 02_labels checks"),
        (["course", "JOBS=1"], "-m tools.course --source embedded --jobs 1"),
        (["save", "NB=checks"], "-m tools.course --save --source mnist checks"),
        (["save", "SOURCE=embedded"], "-m tools.course --save --source embedded"),
        (["bench"], "-m benchmarks source="),  # it takes MNIST where it is on disk
        (["bench", "SOURCE=embedded", "ARGS=--quick"], "-m benchmarks --source embedded --quick"),
        (
            ["test", "ARGS=-k clean"],
            "-m pytest -v -p no:cacheprovider -n auto --dist worksteal -k clean tests",
        ),
        (["lab", "ARGS=--port=1"], "-m jupyterlab --port=1"),
        (["export"], "-m tools.export"),
        (["pages"], "-m tools.course --no-run"),
    ],
)
def test_make_passes_its_words_on(said, words, command):
    assert command in " ".join(said(*words))


@pytest.mark.parametrize("name", ["my digits", "it's", 'the "best"', "a$b", "$HOME", "$(x)", "`x`"])
def test_make_takes_names_as_they_are_typed(said, name):
    for command in ("course", "save", "bench", "verdicts", "ablation"):
        words = said(command, f"SOURCE={name}")
        assert words[words.index("--source") + 1] == name, command
    assert said("course", f"NB={name}")[4:-1] == name.split()
    assert said("lab", f"SOURCE={name}")[-1] == f"source={name}"


def test_make_lab_is_given_a_folder_relative_to_where_make_runs(said):
    name = "tests/my $digits"
    folder = ROOT / name
    folder.mkdir()
    try:
        assert said("lab", f"SOURCE={name}")[-1] == f"source={folder}"
    finally:
        folder.rmdir()


def test_the_workflow_uses_pinned_actions_and_may_only_read():
    text = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: \S+@(\S+)", text)
    assert used and all(re.fullmatch(r"[0-9a-f]{40}", version) for version in used)
    assert "\npermissions:\n  contents: read\n" in text
