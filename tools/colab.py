"""Tell README and notebooks where on GitHub the course is, or take the address away again.

    python tools/colab.py owner/name      badges "Open in Colab", and the address for the setup cell
    python tools/colab.py ""              without badges and address, as the course is delivered

Running it again, or with another address, leaves no trace of the one before.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BADGE = re.compile(r"\[!\[Open in Colab\]\([^()\s]+\)\]\([^()\s]+\)\n\n")
ADDRESS = re.compile(r'^COURSE_REPO = "[^"\n]*"', re.MULTILINE)


def badge(repo, notebook):
    """The Markdown of a badge that opens a notebook of the repository in Colab; nothing without a repo."""
    if not repo:
        return ""
    opens = f"https://colab.research.google.com/github/{repo}/blob/main/notebooks/{notebook}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({opens})\n\n"


def with_badge(text, repo, notebook):
    """Markdown with the badge below its title, in place of an older one. Raises ValueError if untitled."""
    text = BADGE.sub("", text)
    title = re.search(r"^# .+\n\n", text, re.MULTILINE)
    if not title:
        raise ValueError(f"The page for {notebook} has no title to set a badge below: begin it with '# '.")
    return text[: title.end()] + badge(repo, notebook) + text[title.end() :]


def with_address(source, repo, notebook):
    """The setup cell with the git address of the repository. Raises ValueError if it has no place for it."""
    address = f"https://github.com/{repo}" if repo else ""
    changed, places = ADDRESS.subn(f'COURSE_REPO = "{address}"', source)
    if places != 1:
        raise ValueError(
            f"The first code cell of {notebook} does not set COURSE_REPO: restore the setup cell."
        )
    return changed


def stamp(root, repo):
    """Stamp README.md and notebooks/ below root; returns the paths that changed.

    repo: "owner/name", or "" to undo. Raises ValueError before anything is written.
    """
    if repo and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", repo):
        raise ValueError(f"REPO={repo!r} is no GitHub repository: give owner/name, or nothing to undo.")
    paths = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    readme, first = root / "README.md", paths[1]  # 00 is optional
    texts = {readme: with_badge(readme.read_text(encoding="utf-8"), repo, first.name)}
    for path in paths:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        title = next(cell for cell in notebook["cells"] if cell["cell_type"] == "markdown")
        setup = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        for cell, change in ((title, with_badge), (setup, with_address)):
            cell["source"] = change("".join(cell["source"]), repo, path.name).splitlines(keepends=True)
        # The form in which nbformat writes: so git sees the changed lines and no others.
        texts[path] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    changed = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        path.write_text(texts[path], encoding="utf-8", newline="\n")
    return changed


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repo", help='the repository as owner/name; "" to undo')
    try:
        changed = stamp(ROOT, parser.parse_args().repo)
    except ValueError as error:
        return str(error)
    print("\n".join(str(path.relative_to(ROOT)) for path in changed) or "Nothing to change.")
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show is no reason to end
    sys.exit(main())
