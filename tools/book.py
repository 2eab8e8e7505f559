"""The course as web pages, built from the stored outputs: nothing is executed.

    make book      then open build/book/index.html

Notebooks and documents are copied and changed for the web: setup cells are folded, a panel becomes its
picture, links lead to pages. Sphinx then makes pages of the copies. If `make colab` has stamped an address,
each page has links to Colab, Binder and GitHub.
"""

import html
import importlib.util
import json
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.colab import BADGE  # noqa: E402

THEME = Path(__file__).resolve().parent / "book_theme"
ADDRESS = re.compile(r'^COURSE_REPO = "https://github\.com/([^"\n]+)"', re.MULTILINE)
FENCED = re.compile(r"```.*?```", re.DOTALL)
# Code first, so that what looks like a link in it is left alone.
LINK = re.compile(
    FENCED.pattern + r"|`[^`\n]+`|(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<to>[^()\s]+)\)", re.DOTALL
)
PANEL = "application/vnd.jupyter.widget-view+json"
CONTENTS = """
```{{toctree}}
:hidden:
:caption: Notebooks

{notebooks}
```

```{{toctree}}
:hidden:
:caption: Beside them

docs/glossary
docs/measurements
docs/elsewhere
docs/teachers
```
"""


def pages_of(root):
    """{file: the page that it becomes}, both relative to root, in the order of reading."""
    paths = [*sorted(root.glob("notebooks/[0-9][0-9]_*.ipynb")), *sorted(root.glob("docs/*.md"))]
    files = [path.relative_to(root).as_posix() for path in paths]
    return {"README.md": "index.md"} | {file: file for file in files}


def address_of(notebook):
    """owner/name, if `make colab` has stamped an address into the notebook's setup cell, else ""."""
    code = next("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    stamped = ADDRESS.search(code)
    return stamped[1] if stamped else ""


# ---------------------------------------------------------------- Markdown


def anchor_of(heading):
    """The anchor of a heading as GitHub and Sphinx write it; JupyterLab's own becomes that too."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def with_links(text, file, pages, repo):
    """Markdown whose links lead to pages. What is no page is linked on GitHub, or not at all."""

    def change(match):
        target = match["to"]
        if target is None or match["picture"] or re.match(r"https?://", target):
            return match[0]
        path, _, heading = target.partition("#")
        anchor = f"#{anchor_of(heading)}" if heading else ""
        if not path:
            return f"[{match['text']}]({anchor})"
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        if path in pages:
            to = posixpath.relpath(pages[path], posixpath.dirname(file) or ".")
            return f"[{match['text']}]({to}{anchor})"
        return f"[{match['text']}](https://github.com/{repo}/blob/main/{path})" if repo else match["text"]

    return LINK.sub(change, text)


def with_drawn_summaries(text):
    """Markdown with formulas in <summary> marked for MathJax: inside of HTML, no `$` is read."""

    def mark(formula):
        return rf'<span class="math notranslate nohighlight">\({html.escape(formula[1])}\)</span>'

    return re.sub(r"<summary>.*?</summary>", lambda summary: re.sub(r"\$(.+?)\$", mark, summary[0]), text)


def with_places(text, file, repo):
    """Markdown without the badge and, below its title, with links to where the page can be run and edited."""
    text = BADGE.sub("", text)
    if not repo:
        return text
    places = {"Edit": f"https://github.com/{repo}/edit/main/{file}"}
    if file.endswith(".ipynb"):
        colab = f"https://colab.research.google.com/github/{repo}/blob/main/{file}"
        binder = f"https://mybinder.org/v2/gh/{repo}/main?labpath={file}"
        places = {"Open in Colab": colab, "Open in Binder": binder} | places
    line = " · ".join(f"[{name}]({url})" for name, url in places.items())
    return re.sub(r"^# .+\n\n", lambda title: f"{title[0]}{line}\n\n", text, count=1, flags=re.MULTILINE)


# ---------------------------------------------------------------- cells


def folded(metadata, code):
    """Metadata of a code cell for myst-nb: what is folded in JupyterLab is folded on the page."""
    hidden = metadata.get("jupyter", {})
    source, outputs = hidden.get("source_hidden"), hidden.get("outputs_hidden")
    if not source and not outputs:
        return {}
    title = re.match(r"# @title (.+)", code)
    return {
        "tags": ["hide-cell" if source and outputs else "hide-input" if source else "hide-output"],
        "mystnb": {"code_prompt_show": title[1] if title else "Show the code", "code_prompt_hide": "Fold"},
    }


def alternative_text(output, section):
    """What a screen reader says of a picture: its titles where the output has them, else where it stands."""
    titles = re.search(r"Picture: (.+)", "".join(output["data"].get("text/plain", "")))
    return titles[1] if titles else f"Picture in the section: {section}"


def without_widgets(outputs, file, repo):
    """Outputs in which a panel is its picture, with a line below that says where it moves."""
    colab = f"https://colab.research.google.com/github/{repo}/blob/main/{file}"
    also = f', or <a href="{colab}">in Colab</a>' if repo else ""
    note = f'<p class="panel-note">A panel: it moves in JupyterLab (<code>make lab</code>){also}.</p>'
    kept = []
    for output in outputs:
        kept.append(output)
        if output.get("data", {}).pop(PANEL, None):
            kept.append({"output_type": "display_data", "metadata": {}, "data": {"text/html": note}})
    return kept


def web_notebook(notebook, file, pages, repo):
    """Change a notebook for the web, in place."""
    section = ""
    for i, cell in enumerate(notebook["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            section = [section, *re.findall(r"^#+ (.+)", FENCED.sub("", text), re.MULTILINE)][-1]
            text = with_places(text, file, repo) if i == 0 else text
            cell["source"] = with_drawn_summaries(with_links(text, file, pages, repo))
        elif cell["cell_type"] == "code":
            cell["metadata"] = folded(cell["metadata"], text)
            cell["outputs"] = without_widgets(cell["outputs"], file, repo)
            for output in cell["outputs"]:
                if "image/png" in output.get("data", {}):
                    image = {"alt": alternative_text(output, section)}
                    cell["metadata"].setdefault("mystnb", {})["image"] = image


# ---------------------------------------------------------------- the pages


def stage(root, folder):
    """Copy all that becomes a page from root into folder, changed for the web."""
    pages = pages_of(root)
    shutil.copytree(THEME, folder)
    texts = {file: (root / file).read_text(encoding="utf-8") for file in pages}
    notebooks = {file: json.loads(text) for file, text in texts.items() if file.endswith(".ipynb")}
    repo = address_of(next(iter(notebooks.values())))
    for file, page in pages.items():
        target = folder / page
        target.parent.mkdir(exist_ok=True)
        if file in notebooks:
            web_notebook(notebooks[file], file, pages, repo)
            text = json.dumps(notebooks[file], ensure_ascii=False)
        else:
            text = with_links(with_places(texts[file], file, repo), file, pages, repo)
        if page == "index.md":
            text += CONTENTS.format(notebooks="\n".join(file.removesuffix(".ipynb") for file in notebooks))
        target.write_text(text, encoding="utf-8", newline="\n")
    for picture in (root / "docs").glob("*.png"):
        shutil.copy(picture, folder / "docs")


def add_mathjax(static):
    """Copy MathJax, which comes by pip, so that no page asks another host for it."""
    [package] = importlib.util.find_spec("sphinx-mathjax-offline").submodule_search_locations
    source, fonts = Path(package) / "static" / "mathjax", "output/chtml/fonts/woff-v2"
    shutil.copytree(source / fonts, static / "mathjax" / fonts)
    shutil.copy(source / "tex-chtml.js", static / "mathjax")


def build(root, target):
    """Make the pages in the folder target, in place of older ones; CalledProcessError if Sphinx fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix="book-") as half:
        source, pages = Path(half, "source"), Path(half, "pages")
        stage(root, source)
        add_mathjax(source / "_static")
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
        subprocess.run([*command, "-d", Path(half, "read"), source, pages], check=True)
        shutil.rmtree(target, ignore_errors=True)
        pages.rename(target)


def main():
    if importlib.util.find_spec("sphinx") is None:
        return "Sphinx is not in this environment: `make book` installs it into one of its own, and builds."
    try:
        build(ROOT, ROOT / "build" / "book")
    except subprocess.CalledProcessError:
        return "Sphinx did not make the pages; what it said stands above. build/book is as it was."
    print("The course as web pages: build/book/index.html")
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show is no reason to end
    sys.exit(main())
