"""The small parts of the tools: checks, headings, directives, tidy outputs, and the README's markdown."""
import nbformat
import pytest
from nbformat.v4 import new_code_cell as code
from nbformat.v4 import new_markdown_cell as md
from nbformat.v4 import new_notebook, new_output
from tools.notebooks import heading_above, headings, is_check, reader_view, reading_order, split_directives, title
from tools.outputs import tidy
from tools.readme import main, markdown_table, relink, render

BAR = '<div><progress max="3" value="3"></progress> 100.00% [3/3 00:00&lt;00:00]</div>'
TABLE = "<div><table><thead><tr><th>epoch</th><th>loss</th></tr></thead><tbody><tr><td>0</td><td>0.5</td></tr></tbody></table></div>"


def shown(*outputs):
    return tidy(new_notebook(cells=[code("x", outputs=list(outputs))])).cells[0].outputs


def display(**data):
    return new_output("display_data", {k.replace("_", "/"): v for k, v in data.items()})


@pytest.mark.parametrize("source, answer", [
    ("assert x", True), ("test_eq(1, 1)", True), ("torch.testing.assert_close(a, b)", True), ("with expect_fail(ValueError): f()", True),
    ("%matplotlib inline\nfor x in y: assert x", True), ("# assert x", False), ("'assert x'", False), ("def f():\n    assert x", False), ("test = 1", False), ("a b", False)])
def test_a_check_is_told_from_other_code(source, answer):
    assert is_check(source) is answer


def test_headings_skip_fences_and_are_found_above():
    nb = new_notebook(cells=[md("# A `b`"), md("## C\n```\n# no\n```"), code("x"), md("## D"), code("y")])
    assert headings(nb.cells[1].source) == ["C"] and title(nb, "none") == "A b"
    assert [heading_above(nb, i) for i in (2, 4)] == ["C", "D"] and heading_above(nb, 0) == "(no heading above)"


def test_reading_order_puts_index_first(tmp_path):
    for name in ("09_z", "01a_y", "index", "01_x", "_no", "00_w"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [p.stem for p in reading_order(tmp_path)] == ["index", "00_w", "01_x", "01a_y", "09_z"]


def test_directives_are_taken_off_and_obeyed():
    assert split_directives("#| export\n#|code-fold: true\nx = 1\n#| not a directive here") == ({"export": "", "code-fold": "true"}, "x = 1\n#| not a directive here")
    nb = reader_view(new_notebook(cells=[code("#| hide\nx"), code("#| default_exp a"), code("#| export\nf"), md("#| no"), code("#| echo: false\ng")]))
    assert [c.source for c in nb.cells] == ["f", "#| no", "g"]
    assert nb.cells[0].metadata.tags == ["exported"] and nb.cells[2].metadata.transient.remove_source


def test_bars_and_empty_displays_go():
    assert not shown(display(text_html=BAR, text_plain=BAR, text_markdown=BAR), display(text_html="<style>p{}</style>"), display(text_html="<div></div>"),
                     display(text_html="", text_plain="<IPython.core.display.HTML object>"), new_output("stream", text="\r 10%|# |\r100%|##|", name="stderr"),
                     new_output("display_data", {"text/plain": "0%|", "application/vnd.jupyter.widget-view+json": {}}))


def test_tables_lose_their_twins_only():
    out, = shown(display(text_html=TABLE, text_plain=TABLE, text_markdown="```html```"))
    assert out.data == {"text/html": TABLE}
    out, = shown(display(text_html=TABLE, text_plain="epoch loss"))
    assert set(out.data) == {"text/html", "text/plain"}
    out, = shown(display(text_markdown="*a*", text_plain="<IPython.core.display.Markdown object>"))
    assert out.data["text/markdown"] == "*a*"


def test_streams_are_joined_and_pictures_kept():
    png = new_output("display_data", {"image/png": "aGk=", "text/plain": "<Figure>"}, metadata={"needs_background": "light"})
    first, second = shown(new_output("stream", text="a\rb", name="stdout"), new_output("stream", text="c\n", name="stdout"), png)
    assert first.text == "bc\n" and second.data["image/png"] == "aGk=" and not second.metadata


def test_links_of_the_readme():
    assert relink("[a](02_labels.ipynb#X) [b](../LICENSE) [c](https://x.y/z) ![d](images/p.png) [e](#What-now)") == \
        "[a](nbs/02_labels.ipynb#X) [b](LICENSE) [c](https://x.y/z) ![d](nbs/images/p.png) [e](#what-now)"
    assert relink("`[a](b)` [a](b)\n```\n[a](b)\n```") == "`[a](b)` [a](nbs/b)\n```\n[a](b)\n```"


def test_tables_become_markdown():
    html = "<table><thead><tr><th></th><th>a</th></tr><tr><th>row</th><th></th></tr></thead><tbody><tr><th>x|y</th><td>1.5</td></tr><tr><th>&lt;z&gt;</th><td>2</td></tr></tbody></table>"
    assert markdown_table(html) == "| row | a |\n| --- | ---: |\n| x\\|y | 1.5 |\n| &lt;z> | 2 |"
    assert markdown_table("<p>no</p>") is None


def test_readme_is_rendered_with_its_pictures(tmp_path):
    nb = new_notebook(cells=[
        md("# T\n\n[a](01_x.ipynb)"), code("#| hide\nhidden"), code("plot()", outputs=[display(image_png="aGk=")]),
        code("print(1)", outputs=[new_output("stream", text="\x1b[31m1\n\n\n2\x1b[0m\n", name="stdout")]), code("df", outputs=[display(text_html=TABLE)])])
    images = tmp_path / "nbs/images"
    images.mkdir(parents=True)
    (images / "index_9.png").touch()
    nbformat.write(nb, tmp_path / "nbs/index.ipynb")
    main(tmp_path)
    text = (tmp_path / "README.md").read_text()
    for piece in ("[a](nbs/01_x.ipynb)", "```python\nplot()\n```", "![T](nbs/images/index_1.png)", "```text\n1\n\n\n2\n```", "| epoch | loss |\n| ---: | ---: |\n| 0 | 0.5 |"):
        assert piece in text
    assert "hidden" not in text and [p.name for p in images.iterdir()] == ["index_1.png"] and (images / "index_1.png").read_bytes() == b"hi"


def test_readme_refuses_errors(tmp_path):
    nbformat.write(new_notebook(cells=[code("x", outputs=[new_output("error", ename="E", evalue="v", traceback=[])])]), tmp_path / "index.ipynb")
    with pytest.raises(ValueError, match="error among its outputs"):
        render(tmp_path / "index.ipynb")
