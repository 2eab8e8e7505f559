"""Reading the notebooks, for the tests that check them."""

import ast
import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def cells_of(path, kind=None):
    """The cells of a notebook as (number, cell), their source as one string; of one kind if given."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [(i, cell | {"source": "".join(cell["source"])}) for i, cell in enumerate(notebook["cells"])]
    return [(i, cell) for i, cell in cells if kind in (None, cell["cell_type"])]


def statements_of(path):
    """The top-level statements of a notebook's code, without its setup cell."""
    return [node for _, cell in cells_of(path, "code")[1:] for node in ast.parse(cell["source"]).body]


def definitions_of(path):
    """The classes and functions that a notebook defines: a dict from name to its statements, in order."""
    found = {}
    for node in statements_of(path):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.setdefault(node.name, []).append(node)
    return found


def load_definition(path, name, folder):
    """Import a class or function as the notebook defines it, from a module file written to `folder`.

    The module holds the definition, those that it uses, and the notebook's imports of what they use:
    no other cell runs. What would depend on a variable of the notebook fails with a NameError.
    """
    definitions = definitions_of(path)
    needed, used, waiting = set(), set(), [name]
    while waiting:
        for node in definitions[waiting.pop()]:
            needed.add(node)
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            waiting += [n for n in names - used if n in definitions]
            used |= names
    lines = []
    for node in statements_of(path):
        if isinstance(node, ast.Import | ast.ImportFrom):
            kept = [a for a in node.names if (a.asname or a.name.split(".")[0]) in used]
            if kept:
                node.names = kept
                lines.append(ast.unparse(node))
    lines += [ast.unparse(node) for nodes in definitions.values() for node in nodes if node in needed]
    file = Path(folder) / f"notebook_{path.stem}_{name}.py"
    file.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)
