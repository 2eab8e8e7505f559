"""What Sphinx needs to know for `make book`; tools/book.py puts a copy of this folder beside the pages."""

project = "Build a GPT"
html_title = "Build a GPT, from a text file upwards"
root_doc = "index"
extensions = ["myst_nb"]

# The stored outputs are shown; nothing is executed.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # else two scripts of other hosts
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
smartquotes = False  # it turns "--" into a dash

mathjax_path = "mathjax/tex-chtml.js"

html_theme = "furo"
pygments_dark_style = "github-dark"  # the default underlines module names, as if they were links
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_use_index = False
html_show_copyright = False
