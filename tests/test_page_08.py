"""Notebook 08: what it writes in its cells is what helpers/ holds, and without its packages it says so."""

import ast
import subprocess
import sys

import pytest
import torch
from notebook_files import NOTEBOOKS, ROOT, load_definition, statements_of
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.program.gpt2 import NAMES, gpt2_weights
from helpers.tokenizer import BytePairTokenizer

PAGE = next(path for path in NOTEBOOKS if path.stem.startswith("08"))


def value_of(name):
    """The expression that a variable of the page is set to, as Python writes it."""
    (value,) = (
        ast.unparse(node.value)
        for node in statements_of(PAGE)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    )
    return value


def test_byte_pairs_are_learned_and_applied_as_the_helper_does(text, tmp_path):
    learn, encode = (load_definition(PAGE, name, tmp_path) for name in ("learn", "encode"))
    assert value_of("WORDS") == f"re.compile({BytePairTokenizer.WORDS.pattern!r})"
    for function in (learn, encode):
        function.__globals__["WORDS"] = BytePairTokenizer.WORDS
    learned, theirs = learn(text, 100), BytePairTokenizer.train(text, 356)
    assert list(learned) == theirs.merges and len(learned) == 100
    for other in (text[:1000], "naïve ещё 🙂", "aaaa", ""):
        assert encode(other, learned) == theirs.encode(other).tolist()


def test_the_weights_of_gpt2_get_the_names_that_the_helper_gives_them(tmp_path):
    ours = load_definition(PAGE, "our_weights", tmp_path)
    ours.__globals__["NAMES"] = ast.literal_eval(value_of("NAMES"))
    assert list(ours.__globals__["NAMES"].items()) == list(NAMES.items())
    config = GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    weights = GPT2LMHeadModel(config).state_dict()
    renamed, theirs = ours(weights), gpt2_weights(weights)
    assert renamed.keys() == theirs.keys()
    assert all(torch.equal(renamed[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("name", ["transformers", "tokenizers", "regex"])
def test_without_its_packages_the_page_says_what_to_install(name):
    (imports,) = (ast.unparse(node) for node in statements_of(PAGE) if isinstance(node, ast.Try))
    program = f"import sys\nsys.modules[{name!r}] = None\n{imports}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: This page needs three more packages: run %pip install transformers tokenizers regex "
        "and this cell again."
    )
