"""Execute the notebooks without a browser.

    python tools/notebooks.py run [notebooks...]      on this machine's best device, results to build/
    python tools/notebooks.py refresh [notebooks...]  on the CPU, outputs stored in the notebooks

`refresh` writes a notebook back only if every cell ran, and in normal form, so that two refreshes
differ where results differ and nowhere else.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4.nbbase import random_cell_id
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def execute(notebook, name):
    """Run all cells in the folder of the notebooks, with a bar that names the section it is in."""
    # Colours and widths of this terminal must not end up in stored outputs.
    client = NotebookClient(
        notebook,
        timeout=3600,
        kernel_name="python3",
        resources={"metadata": {"path": ROOT / "notebooks"}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # else it warns of TCP on localhost
    )
    total = len(notebook.cells)
    bar = tqdm(
        total=total, desc=name, unit="cell", bar_format="{desc:28} {n_fmt:>3}/{total_fmt} {bar:20} {elapsed}"
    )

    async def done(cell, cell_index):
        bar.update(cell_index + 1 - bar.n)

    client.on_cell_start = done
    with bar:
        client.execute()
        bar.update(total - bar.n)


def normalise(notebook):
    """The stored form: no widget state (GitHub refuses it), no timings, one stream output per run.

    What a cell keeps of its metadata is its tags, and that it is folded: `jupyter` for JupyterLab, `cellView`
    for Colab. Colab can save a notebook as nbformat 4.0, with the cells' ids in their metadata, and puts a
    badge of its own on top where it saves to GitHub.
    """
    notebook.cells = [cell for cell in notebook.cells if cell.metadata.get("id") != "view-in-github"]
    notebook.nbformat_minor = 5  # since then a cell has an id
    for cell in notebook.cells:
        cell.id = cell.get("id") or cell.metadata.get("id") or random_cell_id()
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    )
    keys = ("tags", "jupyter", "cellView")
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in keys if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type != "code":
            continue
        merged = []
        for output in cell.outputs:
            if (
                merged
                and output.output_type == "stream" == merged[-1].output_type
                and output.name == merged[-1].name
            ):
                merged[-1].text += output.text
            else:
                merged.append(output)
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
        cell.outputs = merged
    return notebook


def write(notebook, path):
    """Write a notebook with Unix's newlines on every system, so that git sees what changed and no more."""
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")


def warnings_in(notebook):
    """What a learner should not see in stored outputs: anything on stderr."""
    return [
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "refresh"])
    parser.add_argument("notebooks", nargs="*", type=Path)
    args = parser.parse_args()
    paths = args.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if args.command == "refresh":
        # What is stored must be what `make test` compares with.
        os.environ["COURSE_DEVICE"] = "cpu"
        os.environ["COURSE_PRESET"] = "course-cpu"
        for name in ("COURSE_CORPUS", "COURSE_GPT2"):
            os.environ.pop(name, None)
    failed = 0
    for path in paths:
        notebook, begin, fault = nbformat.read(path, as_version=4), time.perf_counter(), ""
        try:
            execute(notebook, path.stem)
        except CellExecutionError as error:
            fault = f"{error.ename}: {error.evalue}\n{error.traceback}"
        stderr = warnings_in(notebook)
        if args.command == "refresh" and stderr and not fault:
            fault = f"wrote to stderr: {stderr[0].strip()[:300]}"
        if args.command == "run":
            target = ROOT / "build" / path.name
            target.parent.mkdir(exist_ok=True)
            write(notebook, target)
        elif not fault:
            write(normalise(notebook), path)
        if fault:
            failed += 1
            print(f"{path.name}: {fault}", file=sys.stderr)
        else:
            where = f" -> build/{path.name}" if args.command == "run" else ", stored"
            print(f"{path.name}: {time.perf_counter() - begin:.0f} s{where}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # what a terminal cannot show is no reason to end
    sys.exit(main())
