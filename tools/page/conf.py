"""What Sphinx is told about the pages of the course.

Its words are listed at https://www.sphinx-doc.org/en/master/usage/configuration.html, those of the
notebooks at https://myst-nb.readthedocs.io, and those of the theme at
https://sphinx-book-theme.readthedocs.io.
"""

project = "multilabel_mnist"
root_doc = "index"
extensions = ["myst_nb", "sphinx_copybutton"]

nb_execution_mode = "off"  # tools.course has run them
nb_merge_streams = True
nb_ipywidgets_js = {}  # these would come from the network
myst_heading_anchors = 6
myst_heading_slug_func = "tools.notebooks.anchor"

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_copy_source = False
html_use_index = False
html_show_search_summary = False  # a page opened from a disk may not fetch another one
html_theme_options = {
    "navigation_with_keys": True,
    "navbar_persistent": [],  # the sidebar has the search
    "use_download_button": False,
    "use_fullscreen_button": False,
    "footer_content_items": [],
    "search_bar_text": "Search the course",
}
copybutton_selector = "div:not(.output) > div.highlight > pre"  # code, not what it printed


def setup(app):
    """Take notebooks alone for pages: a link to any other file leads to a copy of that file."""
    del app.registry.source_suffix[".md"]
