"""The course as web pages: what `make book` makes of it, and the pages in a real browser without a network.

In `make test` the copies are checked that Sphinx reads; in `make test-long` the pages are built and opened in
Chromium: `pytest -m faults tests/test_book.py -s` prints what a page weighs. COURSE_BROWSER=required fails
where no Chromium is found, instead of skipping.
"""

import gzip
import html.parser
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from notebook_files import NOTEBOOKS, ROOT, cells_of
from playwright.sync_api import sync_playwright

from tools.book import PANEL, alternative_text, pages_of, stage, with_links
from tools.colab import stamp

BOOK = ROOT / "build" / "book"
PAGES = {file: Path(page).with_suffix(".html").as_posix() for file, page in pages_of(ROOT).items()}
MB = 1_000_000
PATIENCE = 60_000  # ms, against hanging only


def markdown_of(file):
    """The Markdown of a page's source."""
    if file.endswith(".ipynb"):
        return "\n\n".join(cell["source"] for _, cell in cells_of(ROOT / file, "markdown"))
    return (ROOT / file).read_text(encoding="utf-8")


def without_code(markdown):
    return re.sub(r"```.*?```|`[^`\n]+`", "", markdown, flags=re.DOTALL)


def outputs_of(path):
    """The data of a notebook's outputs, by what it is: {"image/png": ...}."""
    return [out["data"] for _, cell in cells_of(path, "code") for out in cell["outputs"] if "data" in out]


# ---------------------------------------------------------------- the copies that Sphinx reads


def copied(folder, repo):
    """A copy of what becomes pages, with an address stamped or none."""
    for path in (ROOT / "README.md", *NOTEBOOKS, *(ROOT / "docs").iterdir()):
        to = folder / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    stamp(folder, repo)
    return folder


@pytest.fixture(scope="module", params=["", "ada/gpt.course"], ids=["no address", "address"])
def staged(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged")
    stage(copied(folder / "course", request.param), folder / "pages")
    return SimpleNamespace(pages=folder / "pages", repo=request.param)


def test_a_panel_becomes_its_picture_and_says_where_it_moves(staged):
    for path in NOTEBOOKS:
        data, before = outputs_of(staged.pages / "notebooks" / path.name), outputs_of(path)
        assert not any(PANEL in bundle for bundle in data), "no live widget, and so no script of another host"
        pictures = [bundle["image/png"] for bundle in before if "image/png" in bundle]
        assert [bundle["image/png"] for bundle in data if "image/png" in bundle] == pictures
        lines = [bundle["text/html"] for bundle in data if "text/html" in bundle]
        assert len(lines) == sum(PANEL in bundle for bundle in before) > 0
        assert all("<code>make lab</code>" in line for line in lines)
        in_colab = f"github/{staged.repo}/blob/main/notebooks/{path.name}"
        assert all((in_colab in line) if staged.repo else ("olab" not in line) for line in lines)


def test_every_picture_has_an_alternative_text(staged):
    for path in NOTEBOOKS:
        for i, cell in cells_of(staged.pages / "notebooks" / path.name, "code"):
            if any("image/png" in output.get("data", {}) for output in cell["outputs"]):
                assert len(cell["metadata"]["mystnb"]["image"]["alt"]) > 10, f"{path.name}, cell {i}"
    without = {"data": {"text/plain": "<Figure size 750x516 with 1 Axes>"}}
    titled = {"data": {"text/plain": ["Panel: run this cell.\n", "Picture: a loss that falls"]}}
    assert alternative_text(without, "2. Why?") == "Picture in the section: 2. Why?"
    assert alternative_text(titled, "2. Why?") == "a loss that falls"
    for file in PAGES:
        assert not re.search(r"!\[\]", without_code(markdown_of(file))), file


def test_the_code_is_what_the_notebook_holds_and_is_folded_where_it_folds_it(staged):
    for path in NOTEBOOKS:
        copies, cells = (
            cells_of(folder / path.name, "code")[1:] for folder in (staged.pages / "notebooks", path.parent)
        )
        assert [cell["source"] for _, cell in copies] == [cell["source"] for _, cell in cells]
        folds = [bool(cell["metadata"].get("jupyter")) for _, cell in cells]
        assert [bool(cell["metadata"].get("tags")) for _, cell in copies] == folds
        setup = cells_of(staged.pages / "notebooks" / path.name, "code")[0][1]["metadata"]
        assert setup["tags"] == ["hide-input"] and setup["mystnb"]["code_prompt_show"].startswith("Setup: ")


def test_where_a_page_can_be_run_and_edited_is_said_if_there_is_an_address(staged):
    for file, page in pages_of(ROOT).items():
        text = (staged.pages / page).read_text(encoding="utf-8")
        names = re.findall(r"\[(Open in Colab|Open in Binder|Edit)\]\((https://\S+?)\)", text)
        assert "colab-badge.svg" not in text
        if not staged.repo:
            assert names == [] and "github.com/ada" not in text
            continue
        edit = ("Edit", f"https://github.com/{staged.repo}/edit/main/{file}")
        colab = f"https://colab.research.google.com/github/{staged.repo}/blob/main/{file}"
        binder = f"https://mybinder.org/v2/gh/{staged.repo}/main?labpath={file}"
        run = [("Open in Colab", colab), ("Open in Binder", binder)] if file.endswith(".ipynb") else []
        assert names == [*run, edit], file


def test_links_lead_to_pages_to_github_or_nowhere():
    pages, file = pages_of(ROOT), "docs/teachers.md"
    for text, expected in {
        "[a](../README.md#the-notebooks)": "[a](../index.md#the-notebooks)",
        "[a](glossary.md)": "[a](glossary.md)",
        "[a](#9.-Is-it-learning,-or-learning-by-heart?)": "[a](#9-is-it-learning-or-learning-by-heart)",
        "[`grade.py`](../tools/grade.py)": "`grade.py`",
        "`[a](../LICENSE)`": "`[a](../LICENSE)`",
        "```\nb[0](../LICENSE)\n```": "```\nb[0](../LICENSE)\n```",
        "![a](course.png)": "![a](course.png)",
        "[a](https://arxiv.org/abs/1706.03762)": "[a](https://arxiv.org/abs/1706.03762)",
    }.items():
        assert with_links(text, file, pages, "") == expected
    on_github = "[`grade.py`](https://github.com/ada/gpt/blob/main/tools/grade.py)"
    assert with_links("[`grade.py`](../tools/grade.py)", file, pages, "ada/gpt") == on_github


# ---------------------------------------------------------------- what builds them


def test_the_pages_have_an_environment_of_their_own_and_share_the_one_list_of_versions():
    def names(file):
        return set(re.findall(r"^([\w-]+)==\S+$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))

    own = names("tools/requirements-book.txt")
    assert {"sphinx", "myst-nb"} <= own and not own & names("requirements.txt")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-c requirements.txt -r tools/requirements-book.txt" in makefile


@pytest.mark.parametrize(
    ("stamped", "owner", "publishes"),
    [("", "ada/gpt", "false"), ("ada/gpt", "ada/gpt", "true"), ("ada/gpt", "eve/fork", "false")],
)
def test_the_workflow_publishes_where_the_address_is_that_of_the_repository(
    tmp_path, stamped, owner, publishes
):
    workflow = (ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8")
    step = re.search(r"id: address\n\s+run: \|\n((?:          .*\n)+)", workflow)[1]
    answer = tmp_path / "answer"
    env = os.environ | {"GITHUB_REPOSITORY": owner, "GITHUB_OUTPUT": str(answer)}
    subprocess.run(["bash", "-e", "-c", step], cwd=copied(tmp_path / "course", stamped), env=env, check=True)
    assert answer.read_text() == f"publish={publishes}\n"
    assert workflow.count("publish == 'true'") == 4, "nothing is built or published without it"


# ---------------------------------------------------------------- the pages


@pytest.fixture(scope="module")
def book():
    """The folder of the pages, built by `make book`; its environment stands before."""
    make = ["make", "-o", ".venv/installed"]
    subprocess.run([*make, "build/book-env/installed"], cwd=ROOT, check=True)
    begin = time.monotonic()
    done = subprocess.run([*make, "book"], cwd=ROOT, capture_output=True, text=True)
    took = time.monotonic() - begin
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\nmake book: {took:.0f} s")
    assert took < 120
    return BOOK


class Tags(html.parser.HTMLParser):
    """What a page refers to: .ids, .links (to other pages), .loads (what a browser fetches for it)."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads = {""}, [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id", ""))
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        self.loads += [attrs[name] for name in ("src", "srcset", "data") if attrs.get(name)]
        if tag == "link" and attrs.get("rel") in ("stylesheet", "preload", "icon", "shortcut icon"):
            self.loads.append(attrs["href"])


@pytest.mark.faults
def test_every_link_and_anchor_leads_somewhere(book):
    pages = {path: Tags(path) for path in book.rglob("*.html")}
    assert {path.relative_to(book).as_posix() for path in pages} == {*PAGES.values(), "search.html"}
    dead = []
    for path, tags in pages.items():
        for link in tags.links:
            url = urlsplit(link)
            if url.scheme in ("http", "https"):
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if target not in pages or unquote(url.fragment) not in pages[target].ids:
                dead.append(f"{path.relative_to(book)}: {link}")
    assert dead == []
    assert sum(len(tags.links) for tags in pages.values()) > 500


@pytest.fixture(scope="module")
def chromium(chromium_path):
    flags = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(book, chromium):
    """visit(page) -> a browser's page whose .asked lists what was sent to it, and .faults what went wrong.

    No network: the pages come from the folder, under the address http://book, and there is nothing else.
    """
    tabs = []

    def visit(page, **settings):
        tab = chromium.new_page(**settings)
        tab.set_default_timeout(PATIENCE)
        tabs.append(tab)
        tab.asked, tab.faults = [], []

        def answer(route):
            url = urlsplit(route.request.url)
            path = book / unquote(url.path).lstrip("/")
            if url.netloc != "book":
                tab.faults.append(f"asks for {route.request.url}")
                route.abort()
            elif path.is_file():
                tab.asked.append(path)
                route.fulfill(path=path)
            else:
                route.fulfill(status=404)

        tab.route("**/*", answer)
        tab.on("console", lambda message: message.type == "error" and tab.faults.append(message.text))
        tab.on("pageerror", lambda error: tab.faults.append(str(error)))
        tab.goto(f"http://book/{page}")
        if tab.locator("script[src*=mathjax]").count():
            tab.wait_for_function("window.MathJax?.startup?.promise?.then(() => true)")
        tab.wait_for_load_state("networkidle")
        return tab

    yield visit
    for tab in tabs:
        tab.close()


def sent(path):
    """How many bytes of a file travel: GitHub Pages compresses text, and pictures and fonts are already."""
    raw = path.read_bytes()
    return len(raw) if path.suffix in (".png", ".woff", ".woff2") else len(gzip.compress(raw))


every_page = pytest.mark.parametrize("file", PAGES)
every_notebook = pytest.mark.parametrize("file", [file for file in PAGES if file.endswith(".ipynb")])


@pytest.mark.faults
@every_page
def test_a_page_opens_without_errors_or_other_hosts_and_weighs_little(visit, file):
    tab = visit(PAGES[file])
    own = sum(path.stat().st_size for path in set(tab.asked) if path.suffix in (".html", ".png"))
    first = sum(sent(path) for path in set(tab.asked))
    print(f"\n{file}: a first visit {first / MB:.2f} MB, page and pictures alone {own / MB:.2f} MB")
    assert tab.faults == []
    assert first <= 1.5 * MB and own <= 1.5 * MB
    assert tab.locator("article h1").count() == 1


@pytest.mark.faults
@every_page
def test_every_formula_is_drawn(visit, file):
    prose = without_code(markdown_of(file))
    expected = len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", prose, re.DOTALL))
    tab = visit(PAGES[file])
    assert tab.locator("mjx-container").count() == expected
    assert tab.locator("mjx-merror").count() == 0
    heights = tab.locator("mjx-container").evaluate_all("all => all.map(one => one.offsetHeight)")
    folded = tab.locator("details mjx-container").count()
    assert sum(height == 0 for height in heights) <= folded
    assert "$" not in re.sub(r"(?s)<(pre|code|script|style).*?</\1>", "", tab.inner_html("article"))


@pytest.mark.faults
@every_notebook
def test_every_picture_is_there_and_fits_at_any_width(visit, file):
    tab = visit(PAGES[file])
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    n_pictures = sum("image/png" in bundle for bundle in outputs_of(ROOT / file))
    pictures = tab.locator("article img")
    tab.wait_for_function("[...document.images].every(one => one.complete)")
    assert pictures.count() == n_pictures > 0
    assert all(pictures.evaluate_all("all => all.map(one => one.naturalWidth > 0 && one.alt.length > 10)"))
    for width in (400, 800, 1400):
        tab.set_viewport_size({"width": width, "height": 900})
        room = "one => [one.getBoundingClientRect(), one.closest('article').getBoundingClientRect()]"
        for box, around in pictures.evaluate_all(f"all => all.map({room})"):
            assert 0 <= around["left"] <= box["left"] < box["right"] <= around["right"] + 0.5 <= width + 0.5
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nobody scrolls sideways"


@pytest.mark.faults
@every_notebook
def test_no_line_of_code_is_cut_on_a_laptop(visit, file):
    tab = visit(PAGES[file], viewport={"width": 1400, "height": 900})
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    too_wide = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText)"
    assert tab.locator("article .cell_input pre").evaluate_all(too_wide) == []


@pytest.mark.faults
@every_notebook
def test_what_is_folded_opens_and_holds_markdown(visit, file):
    tab = visit(PAGES[file])
    n_cells = sum(bool(cell["metadata"].get("jupyter")) for _, cell in cells_of(ROOT / file, "code"))
    folded = tab.locator("article details")
    assert folded.count() == len(re.findall("<details>", markdown_of(file))) + n_cells
    assert not any(folded.evaluate_all("all => all.map(one => one.open)"))
    solution = tab.locator("article details", has_text="Solution").last
    for one in (tab.locator("article details.hide").first, solution):
        assert not one.locator("pre").first.is_visible()
        one.locator("summary").click()
        one.locator("pre").first.wait_for()
    assert "```" not in tab.inner_text("article")


@pytest.mark.faults
def test_search_finds_what_stands_on_a_page(visit):
    tab = visit("index.html", viewport={"width": 1400, "height": 900})
    box = tab.locator("input[name=q]").first
    box.fill("causal mask")
    box.press("Enter")
    tab.locator("#search-results a[href*='03_attention_math.html']").first.wait_for()
    assert tab.faults == []


@pytest.mark.faults
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_follows_the_colours_of_the_system(visit, scheme):
    tab = visit(PAGES[f"notebooks/{NOTEBOOKS[3].name}"], color_scheme=scheme)
    lightness = r"one => Math.max(...getComputedStyle(one).%s.match(/[\d.]+/g).slice(0, 3))"
    page = tab.locator("body").evaluate(lightness % "backgroundColor")
    code = tab.locator("div.cell_input div.highlight").nth(1).evaluate(lightness % "backgroundColor")
    text = tab.locator("article p").first.evaluate(lightness % "color")
    assert all(value > 200 if scheme == "light" else value < 70 for value in (page, code))
    assert abs(page - text) > 100
    assert tab.locator("article img").first.evaluate(lightness % "backgroundColor") == 255, "drawn on white"


@pytest.mark.faults
def test_the_pages_can_be_read_as_files(book, chromium):
    faults, tab = [], chromium.new_page()
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", lambda request: request.url.startswith("file:") or faults.append(request.url))
    tab.goto((book / "notebooks" / f"{NOTEBOOKS[3].stem}.html").as_uri())
    tab.locator("mjx-container").last.wait_for(state="attached")
    assert all(tab.locator("article img").evaluate_all("all => all.map(one => one.naturalWidth > 0)"))
    assert faults == []
    tab.close()


@pytest.mark.faults
def test_with_an_address_the_pages_build_too_and_load_nothing_from_it(book, tmp_path):
    folder = copied(tmp_path / "course", "ada/gpt.course")
    shutil.copytree(ROOT / "tools", folder / "tools")
    python = ROOT / "build" / "book-env" / "bin" / "python"
    subprocess.run([python, "tools/book.py"], cwd=folder, check=True)
    built = folder / "build" / "book"
    assert [path.name for path in (folder / "build").iterdir()] == ["book"], "nothing is left beside it"
    for file, page in PAGES.items():
        tags = Tags(built / page)
        assert not [url for url in tags.loads if urlsplit(url).netloc], page
        assert f"https://github.com/ada/gpt.course/edit/main/{file}" in tags.links
