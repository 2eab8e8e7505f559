"""The exercises: what is right is accepted, and a typical wrong answer is told what is wrong with it."""

import ast
import importlib.util
import inspect
import math
import re

import pytest
import torch
from notebook_files import NOTEBOOKS, cells_of, statements_of
from torch.nn import functional as F

from helpers.exercises.check import CASES, EXERCISES, Operations, case, check, judge
from helpers.exercises.notebook_00 import tiles
from helpers.exercises.notebook_01 import most_frequent_pair
from helpers.exercises.notebook_02 import trigram_probabilities
from helpers.exercises.notebook_03 import causal_mean, look_back
from helpers.exercises.notebook_06 import nucleus

every_exercise = pytest.mark.parametrize("name", EXERCISES)
# Answers that are a number, two numbers, whole numbers, a tensor with a future, a tuple of tensors.
PASTED = "Right, but this is the slow code itself: find a way that needs no loop."
ONE_OF_EACH_KIND = ["cross_entropy", "most_frequent_pair", "sample_ids", "causal_mean", "cached_head"]


def verdict(name, function):
    """The verdict on a function under the name of an exercise, with the parameters that it has."""
    function.__name__ = name
    return judge(function)


# ---------------------------------------------------------------- the notebooks


def function_from(source, path, folder):
    """The function that a piece of a notebook's text defines, with what it uses of the notebook's imports."""
    tree = ast.parse(source)
    name, used = tree.body[0].name, {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    imports = [n for n in statements_of(path) if isinstance(n, ast.Import | ast.ImportFrom)]
    for node in imports:
        node.names = [a for a in node.names if (a.asname or a.name) in used]
    imports = [ast.unparse(node) for node in imports if node.names]
    file = folder / f"{name}_{abs(hash(source))}.py"
    file.write_text("\n".join([*imports, source]) + "\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def stubs():
    """(notebook, number of the cell, name) of each stub: a cell that ends with check(name)."""
    return [
        (path, i, found[1])
        for path in NOTEBOOKS
        for i, cell in cells_of(path, "code")
        if (found := re.search(r"^check\((\w+)\)$", cell["source"], re.MULTILINE))
    ]


def without_docstring(function):
    lines = inspect.getsource(function).rstrip().splitlines()
    docstring = ast.parse("\n".join(lines)).body[0].body[0]
    return lines[: docstring.lineno - 1], lines[docstring.lineno - 1 : docstring.end_lineno], docstring


def test_every_exercise_stands_in_one_notebook_and_every_notebook_has_some():
    assert [name for _, _, name in stubs()] == list(EXERCISES), "in the order of the pages"
    files = {name: f"helpers.exercises.notebook_{path.name[:2]}" for path, _, name in stubs()}
    assert files == {name: exercise.slow.__module__ for name, exercise in EXERCISES.items()}
    per_notebook = [sum(path == where for where, _, _ in stubs()) for path in NOTEBOOKS]
    assert all(3 <= n <= 5 for n in per_notebook) and len(EXERCISES) >= 20


@pytest.mark.parametrize("path, i, name", stubs(), ids=lambda value: str(getattr(value, "stem", value)))
def test_an_exercise_in_a_notebook(path, i, name, tmp_path):
    cells = [cell["source"] for _, cell in cells_of(path)]
    words, stub, below = cells[i - 1 : i + 2]
    head, docstring, node = without_docstring(EXERCISES[name].slow)
    source = inspect.getsource(EXERCISES[name].slow).rstrip()
    body = source.splitlines()[node.end_lineno :]

    assert re.match(r"### \d+\. .+ \(\d+ minutes\)\n", words), "the title says how long it takes"
    assert f"```python\n{chr(10).join(head + body)}\n```" in words, "the slow code is that of helpers"
    asked = re.search(r"(?i)\bno loop\b|\bwithout (a )?loops?\b", words)
    assert bool(asked) == bool(EXERCISES[name].no_loop), "what the task says is what check counts"
    assert "\n".join([*head, *docstring, "    ..."]) in stub, "the stub has its parameters and docstring"
    assert re.findall(r"<summary>(.+?)</summary>", below) == ["Hint 1", "Hint 2", "Solution"]

    # The slow code and the folded solution, with what the notebook imports.
    for text, verdict in ((words, PASTED), (below, f"Solved: {name} agrees")):
        shown = re.search(r"```python\n(.+?)\n```", text, re.DOTALL)[1]
        assert judge(function_from(shown, path, tmp_path)).startswith(verdict)
    unsolved = stub.split("\n\n\n")[-2]
    assert judge(function_from(unsolved, path, tmp_path)).startswith(f"Not solved yet: {name}")


# ---------------------------------------------------------------- right and unsolved


@every_exercise
def test_the_slow_code_is_right_and_does_not_pass_for_a_solution(name):
    slow = EXERCISES[name].slow
    assert judge(slow) == PASTED
    if not EXERCISES[name].no_loop:  # what has a loop of its own is right
        assert verdict(name, lambda *args: slow(*args)).startswith(f"Solved: {name} agrees with")


@pytest.mark.parametrize("name", [name for name, exercise in EXERCISES.items() if exercise.no_loop])
def test_a_loop_is_noticed_by_its_operations(name):
    said = verdict(name, lambda *args: EXERCISES[name].slow(*args))
    many, few = map(int, re.findall(r"\d+", said))
    assert said.startswith("Right, but with a loop: on twice as much data") and many > few > 0


def test_operations_are_counted_and_a_constant_number_of_them_is_no_loop():
    with Operations() as made:
        (torch.ones(5) + 1).cumsum(0)
    assert made.count == 3

    def look_up(codes, vocabulary):
        for _ in range(5):
            codes = codes + 0
        return torch.searchsorted(vocabulary, codes)

    assert judge(look_up).startswith("Solved")


def test_what_fails_on_larger_tensors_is_not_solved():
    def windows(ids, block_size, stride):
        assert len(ids) < 38
        return ids.unfold(0, block_size + 1, stride)

    sizes = [len(case("windows", seed)[0]) for seed in range(CASES)]
    assert max(sizes) < 38, "the cases are smaller"
    assert judge(windows).startswith("Not right yet: it fails on larger tensors. It raised AssertionError")


@every_exercise
def test_a_stub_prints_one_fixed_line(name, capsys):
    def dots(*args): ...

    def raises(*args):
        raise NotImplementedError

    for stub in (dots, raises, lambda *args: ...):
        stub.__name__ = name
        check(stub)
    said = f"Not solved yet: {name} returns nothing. Write your code in place of the three dots.\n"
    assert capsys.readouterr().out == 3 * said


@every_exercise
def test_cases_come_back_from_their_seed_and_differ(name):
    assert all(repr(case(name, seed)) == repr(case(name, seed)) for seed in range(CASES))
    assert len({repr(case(name, seed)) for seed in range(CASES)}) > CASES / 2


def test_check_leaves_the_random_state_alone():
    def draws(x):
        torch.manual_seed(3)
        return x + torch.rand(())

    before = torch.get_rng_state()
    verdict("causal_mean", draws)
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------- wrong answers, as a learner writes them


def surprise_of_guess(chance, right, wrong, others):
    return (right * -math.log(chance) + wrong * -math.log((1 - chance) / others)) / (right + wrong)


def sure(right, wrong, V):
    return surprise_of_guess(right / (right + wrong), right, wrong, V - 1)


def neighbours(ids):
    return list(zip(ids.tolist(), ids.tolist()[1:]))


def tiled(a, q):
    return torch.cat([a] * (q.shape[1] // a.shape[1]), dim=1)


def shared_attention(q, k, v, share=None, causal=True, scale=None):
    """Grouped heads; share says how k and v get H heads."""
    share = share or (lambda a: a.repeat_interleave(q.shape[1] // a.shape[1], dim=1))
    return F.scaled_dot_product_attention(q, share(k), share(v), is_causal=causal, scale=scale)


def scores_of(q, k):
    return q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5


def hide_future(scores, diagonal=1):
    return scores.masked_fill(torch.ones(scores.shape[-2:]).triu(diagonal).bool(), -math.inf)


def entr_of(counts):
    return entr(counts / counts.sum(-1, keepdim=True).clamp(min=1)).sum(-1)


def lowest(N, row_shares=lambda N: N.sum(1) / N.sum()):
    return entr_of(N.sum(0)), (row_shares(N) * entr_of(N)).sum()


def drawn(p, u):
    ends = p.cumsum(1)
    return torch.searchsorted(ends, u[:, None] * ends[:, -1:], right=True).squeeze(1)


def reach(T, n_head):
    return torch.stack([(torch.arange(n_head * T) // n_head).view(n_head, T)[:, : t + 1].flatten().bincount(
        minlength=T) > 0 for t in range(T)])  # fmt: skip


def trigrams(ids, V):
    return torch.bincount((ids[:-2] * V + ids[1:-1]) * V + ids[2:], minlength=V**3).view(V, V, V)


def turn(angle):
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def band(scores, first, last):
    """Scores with -inf but where first <= query - key <= last."""
    T = scores.shape[-1]
    back = torch.arange(T).unsqueeze(1) - torch.arange(T)
    return scores.masked_fill((back < first) | (back > last), -math.inf)


def turned(x, sign=1, start=0, halves=False, power=2):
    T, D = x.shape[2:]
    angles = (torch.arange(T) + start).unsqueeze(1) * 10000 ** (-power * torch.arange(D // 2) / D)
    cos, sin = angles.cos(), sign * angles.sin()
    a, b = x.chunk(2, -1) if halves else (x[..., 0::2], x[..., 1::2])
    pair = [a * cos - b * sin, a * sin + b * cos]
    return torch.cat(pair, -1) if halves else torch.stack(pair, -1).flatten(-2)


def cosine_schedule(n, w, peak, floor, begin=None, end=None, first=1):
    rates = []
    for step in range(n):
        p = (step - (w if begin is None else begin)) / (
            (n if end is None else end) - (w if begin is None else begin)
        )
        if step < w:
            rates.append(peak * (step + first) / w)
        else:
            rates.append(floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * p)))
    return torch.tensor(rates)


def centred(x):
    return x - x.mean(-1, keepdim=True)


def clip_all(longest, *gradients, least=1.0, power=0.5):
    length = sum(g.square().sum() for g in gradients) ** power
    share = longest / length if least == 0 else min(least, longest / length)
    return tuple(g * share for g in gradients)


def forgetful(g, beta, divisor=None):
    out, m = [], 0.0
    for t, number in enumerate(g, start=1):
        m = beta * m + (1 - beta) * number
        out.append(m / (divisor(t) if divisor else 1 - beta**t))
    return torch.stack(out)


def by_place(g, beta):
    weights = torch.tensor([beta**t for t in range(len(g))])
    return torch.stack([(weights * g)[: t + 1].sum() / weights[: t + 1].sum() for t in range(len(g))])


def strengths(G, steps, length=None, sort=True, a=3.4445, b=-4.775, c=2.0315):
    s = torch.linalg.svdvals(G)
    s = s / (s.norm() if length is None else length(s))
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s.sort(descending=True).values if sort else s


def topp(probs, p, keep):
    ranked, order = probs.sort(descending=True)
    kept = torch.zeros_like(probs).scatter(-1, order, ranked * keep(ranked.cumsum(-1)))
    return kept / kept.sum(-1, keepdim=True)


def beam(log_probs, start, width, grow=lambda total, new: total + new, largest=True):
    total, ids, V = torch.zeros(1), torch.tensor([[start]]), log_probs.shape[-1]
    for table in log_probs:
        longer = grow(total.unsqueeze(1), table[ids[:, -1]]).flatten()
        total, best = longer.topk(min(width, len(longer)), largest=largest)
        ids = torch.cat([ids[best // V], (best % V).unsqueeze(1)], dim=1)
    return ids[0]


def with_cache(x, w_q, w_k, w_v, k, v, scale=True, diagonal=None, new_first=False, swap=False):
    q, past = x @ w_q.T, k.shape[1]
    new_k, new_v = x @ w_k.T, x @ w_v.T
    k = torch.cat([new_k, k] if new_first else [k, new_k], dim=1)
    v = torch.cat([new_v, v] if new_first else [v, new_v], dim=1)
    scores = q @ k.transpose(1, 2) / (q.shape[-1] ** 0.5 if scale else 1)
    scores = hide_future(scores, past + 1 if diagonal is None else diagonal)
    return (scores.softmax(-1) @ v, v, k) if swap else (scores.softmax(-1) @ v, k, v)


def in_place_mean(x):
    x[:] = x.cumsum(1)
    return x / torch.arange(1, x.shape[1] + 1).view(-1, 1)


def average_in_half(x):
    return (x.half().cumsum(1) / torch.arange(1, x.shape[1] + 1).view(-1, 1)).float()


def error_of(x, y, w):
    return x @ w - y


def one_pass(local, start=1.0, first=False):
    """Backwards over the numbers; first: the first contribution to a number stays the only one."""
    out = torch.zeros(len(local))
    out[-1] = start
    for i in reversed(range(len(local))):
        for j in range(i):
            out[j] = out[i] * local[i, j] + (0 if first else out[j])
    return out


def forward_pass(local):
    out = torch.eye(len(local))[0]
    for i in range(1, len(local)):
        out[i] = (local[i] * out).sum()
    return out


entr = torch.special.entr
LEAK, NAN, SCALE = "The future leaks in", "NaN or infinity", "The scale is missing"

# For each exercise: what the verdict must say, and a function that is wrong in this way.
VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_ORDER = torch.tensor(VISIBLE + sorted(set(range(256)) - set(VISIBLE)))


def merged(ids, a, b, new, overlap=False, drop=True):
    """The pairs a, b of ids merged, in a run of equal ids every other pair; or with a mistake."""
    at = torch.arange(len(ids) - 1)
    hit = (ids[:-1] == a) & (ids[1:] == b)
    miss = torch.where(hit, -1, at).cummax(0).values
    hit = hit if overlap else hit & ((at - miss) % 2 == 1)
    out = ids.clone()
    out[:-1][hit] = new
    return out[torch.cat([torch.tensor([True]), ~hit])] if drop else out


def one_of_gpt2(x, w, b, n_head, h, order="q h d", scale=lambda C, D: D**0.5, hidden=1):
    """Head h of a fused layer (C, 3 C), or with a mistake: another order of its columns, scale or mask."""
    B, T, C = x.shape
    shape = (3, n_head, C // n_head) if order == "q h d" else (n_head, 3, C // n_head)
    parts = (x @ w + b).view(B, T, *shape)
    q, k, v = (parts[:, :, :, h] if order == "q h d" else parts[:, :, h]).unbind(2)
    scores = q @ k.mT / scale(C, C // n_head)
    return scores.masked_fill(torch.ones(T, T).triu(hidden).bool(), -math.inf).softmax(-1) @ v


def cut_sum(z, join):
    """All cuts of a text from left to right: what ends at a place is joined there."""
    totals = [torch.zeros(())]
    for j in range(len(z)):
        totals.append(join(torch.stack(totals) + z[: j + 1, j]))
    return totals[-1]


WRONG = {
    "squared_distances": [
        ("root is too much", lambda a, b: torch.cdist(a, b)),
        ("not their mean", lambda a, b: ((a[:, None] - b) ** 2).mean(-1)),
        ("Square first", lambda a, b: (a.sum(1, keepdim=True) - b.sum(1)) ** 2),
        ("take differences", lambda a, b: torch.einsum("nc,mc->nm", a, b)),
        ("Axes 0 and 1 are swapped", lambda a, b: ((b[:, None] - a) ** 2).sum(-1)),
        ("The shape is", lambda a, b: (a[:, None] - b) ** 2),
    ],
    "tiles": [
        ("a permute is missing", lambda x, h, w: x.reshape(len(x) * x.shape[1] // h // w, h, w)),
        ("down the columns", lambda x, h, w: torch.cat([c.reshape(-1, h, w) for c in x.split(w, dim=1)])),
        (
            "mixed up",
            lambda x, h, w: x.reshape(len(x) // h, h, -1, w).permute(0, 2, 3, 1).flatten().view(-1, h, w),
        ),
        ("Axes 1 and 2 are swapped", lambda x, h, w: tiles(x, h, w).mT),
        ("the shape is", lambda x, h, w: x.view(len(x) // h, h, -1, w).transpose(1, 2)),
    ],
    "gradient_of_fit": [
        ("The 2 is missing", lambda x, y, w: x.T @ error_of(x, y, w) / len(y)),
        ("for the sum of the squares", lambda x, y, w: 2 * x.T @ error_of(x, y, w)),
        ("minus y", lambda x, y, w: 2 * x.T @ (y - x @ w) / len(y)),
        ("the errors alone", lambda x, y, w: 2 * error_of(x, y, w) / len(y)),
        ("dtype is torch.float32", lambda x, y, w: (2 * x.T @ error_of(x, y, w) / len(y)).float()),
    ],
    "gradients": [
        ("add up", lambda local: one_pass(local, first=True)),
        ("begin with that", lambda local: one_pass(local, start=0.0)),
        ("go on to their parts", lambda local: local[-1] + F.one_hot(torch.tensor(len(local) - 1))),
        ("with the first", forward_pass),
        ("reversed", lambda local: one_pass(local).flip(0)),
        ("not a list", lambda local: one_pass(local).tolist()),
    ],
    "largest_rate": [
        ("lands on 0", lambda s: 1 / s.max().item()),
        ("not the flattest", lambda s: 2 / s.min().item()),
        ("not their mean", lambda s: 2 / s.mean().item()),
        ("not their sum", lambda s: 2 / s.sum().item()),
        ("The shape is", lambda s: 2 / s),
    ],
    "how_sure": [
        ("what the wrong places cost", lambda r, w, V: (0.999, surprise_of_guess(0.999, r, w, V - 1))),
        ("the share of the wrong places", lambda r, w, V: (w / (r + w), sure(r, w, V))),
        ("of a model that knows nothing", lambda r, w, V: (r / (r + w), math.log(V))),
        ("The V - 1 other characters share", lambda r, w, V: (r / (r + w), sure(r, w, 2))),
        ("only V - 1 other", lambda r, w, V: (r / (r + w), sure(r, w, V + 1))),
        ("mean surprise, not the sum", lambda r, w, V: (r / (r + w), (r + w) * sure(r, w, V))),
        ("one bit is ln 2 nats", lambda r, w, V: (r / (r + w), sure(r, w, V) / math.log(2))),
        ("a tuple of 2, not a number", lambda r, w, V: r / (r + w)),
    ],
    "look_up": [
        ("vocabulary of this text alone", lambda c, v: torch.unique(c, return_inverse=True)[1]),
        ("the vocabulary has gaps", lambda c, v: c - v.min()),
        ("1 too large", lambda c, v: torch.searchsorted(v, c, right=True)),
        ("code points themselves", lambda c, v: v[torch.searchsorted(v, c)]),
        ("dtype is torch.int32", lambda c, v: torch.searchsorted(v, c).int()),
        ("not a list", lambda c, v: torch.searchsorted(v, c).tolist()),
        ("the shape is", lambda c, v: torch.searchsorted(v, c).unsqueeze(1)),
    ],
    "windows": [
        (
            "A window is missing",
            lambda ids, T, s: torch.stack([ids[i : i + T + 1] for i in range(0, len(ids) - T - 1, s)]),
        ),
        ("the last target is missing", lambda ids, T, s: ids.unfold(0, T, s)),
        ("The stride is not used", lambda ids, T, s: ids.unfold(0, T + 1, 1)),
        ("block_size apart", lambda ids, T, s: ids.unfold(0, T + 1, T)),
        ("block_size + 1 apart", lambda ids, T, s: ids[: len(ids) // (T + 1) * (T + 1)].view(-1, T + 1)),
        ("Axes 0 and 1 are swapped", lambda ids, T, s: ids.unfold(0, T + 1, s).T),
    ],
    "most_frequent_pair": [
        ("take the largest", lambda ids: max(dict.fromkeys(p := neighbours(ids)), key=p.count)),
        ("not the smallest", lambda ids: max(sorted(p := neighbours(ids)), key=p.count)),
        ("wrong order", lambda ids: tuple(reversed(most_frequent_pair(ids)))),
        ("not the most frequent", lambda ids: max(neighbours(ids))),
        ("Pairs overlap", lambda ids: max(p := neighbours(ids)[::2], key=lambda pair: (p.count(pair), pair))),
        ("a tuple of 2, not a list", lambda ids: list(most_frequent_pair(ids))),
    ],
    "best_losses": [
        ("weigh its entropy by its share", lambda N: lowest(N, row_shares=lambda N: 1 / len(N))),
        ("counted in the columns", lambda N: (entr_of(N.sum(1)), lowest(N)[1])),
        ("the unigram's loss comes first", lambda N: tuple(reversed(lowest(N)))),
        ("bits", lambda N: tuple(loss / math.log(2) for loss in lowest(N))),
        ("perplexities", lambda N: tuple(math.exp(loss) for loss in lowest(N))),
        ("entropy of the pairs", lambda N: (lowest(N)[0], entr_of(N.flatten()))),
        (NAN, lambda N: (lowest(N)[0], (N.sum(1) / N.sum() * entr(N / N.sum(1, True)).sum(1)).sum())),
        ("a tuple of 2, not a tensor", lambda N: lowest(N)[1]),
    ],
    "cross_entropy": [
        ("take the mean", lambda z, y: -(z.log_softmax(1)[y != -100, y[y != -100]]).sum()),
        ("not by all", lambda z, y: -(z.log_softmax(1)[y != -100, y[y != -100]]).sum() / len(y)),
        ("bits", lambda z, y: -(z.log_softmax(1)[y != -100, y[y != -100]]).mean() / math.log(2)),
        ("-100 is counted", lambda z, y: F.cross_entropy(z, y.where(y != -100, 0))),
        (NAN, lambda z, y: -(z.exp() / z.exp().sum(1, keepdim=True)).log()[y != -100, y[y != -100]].mean()),
        ("-1 times", lambda z, y: z.log_softmax(1)[y != -100, y[y != -100]].mean()),
    ],
    "sample_ids": [
        ("must exceed u", lambda p, u: torch.searchsorted(p.cumsum(1), u[:, None]).squeeze(1)),
        ("u is not used", lambda p, u: p.argmax(1)),
        ("not with their running sum", lambda p, u: (p > u[:, None]).long().argmax(1)),
        ("gives V, which is no id", lambda p, u: (p.cumsum(1) <= u[:, None]).sum(1)),
        ("clamping draws it", lambda p, u: (p.cumsum(1) <= u[:, None]).sum(1).clamp(max=p.shape[1] - 1)),
        ("1 too large", lambda p, u: drawn(p, u) + 1),
        ("the shape is", lambda p, u: drawn(p, u).unsqueeze(1)),
        ("dtype is torch.int32", lambda p, u: drawn(p, u).int()),
    ],
    "trigram_probabilities": [
        ("whole table sums to 1", lambda ids, V, a: (n := trigrams(ids, V) + a) / n.sum()),
        ("alpha V", lambda ids, V, a: ((n := trigrams(ids, V)) + a) / (n.sum(-1, True) + a)),
        ("alpha is not used", lambda ids, V, a: (n := trigrams(ids, V) + 1) / n.sum(-1, True)),
        ("These are counts", lambda ids, V, a: trigrams(ids, V) + a),
        ("over the first character", lambda ids, V, a: (n := trigrams(ids, V) + a) / n.sum(0, True)),
        ("Axes 0 and 1 are swapped", lambda ids, V, a: trigram_probabilities(ids, V, a).transpose(0, 1)),
        ("The rows should sum to 1", lambda ids, V, a: (n := trigrams(ids, V) + a) / n.sum(1, True)),
    ],
    "causal_mean": [
        (LEAK, lambda x: x.mean(1, keepdim=True).expand_as(x)),
        ("This is the sum", lambda x: x.cumsum(1)),
        ("not of T", lambda x: x.cumsum(1) / x.shape[1]),
        ("not of t", lambda x: x.cumsum(1) / torch.arange(x.shape[1]).view(-1, 1)),
        ("axis 1", lambda x: x.cumsum(2) / torch.arange(1, x.shape[2] + 1)),
        ("changes its input", in_place_mean),
        ("dtype is torch.float64", lambda x: causal_mean(x).double()),
        ("up to rounding", average_in_half),
        ("Axes 1 and 2 are swapped", lambda x: causal_mean(x).transpose(1, 2)),
        ("Axes 0 and 1 are swapped", lambda x: causal_mean(x).transpose(0, 1)),
        ("not a complex tensor", lambda x: causal_mean(x) + 0j),
        ("too late", lambda x: F.pad(causal_mean(x), (0, 0, 1, 0))[:, :-1]),
    ],
    "softmax": [
        (NAN, lambda s: s.exp() / s.exp().sum(-1, keepdim=True)),
        (NAN, lambda s: (e := (s - s.max()).exp()) / e.sum(-1, keepdim=True)),
        ("over positions", lambda s: torch.softmax(s, dim=-2)),
        ("logarithm", lambda s: F.log_softmax(s, dim=-1)),
        ("All weights together", lambda s: (e := (s - s.max()).exp()) / e.sum()),
        ("The rows should sum to 1", lambda s: (s - s.amax(-1, keepdim=True)).exp()),
        ("changes its input", lambda s: s.sub_(s.amax(-1, keepdim=True)).softmax(-1)),
    ],
    "attend": [
        (SCALE, lambda q, k, v: hide_future(q @ k.transpose(1, 2)).softmax(-1) @ v),
        ("not by sqrt(D)", lambda q, k, v: hide_future(q @ k.transpose(1, 2) / q.shape[-1]).softmax(-1) @ v),
        (LEAK, lambda q, k, v: scores_of(q, k).softmax(-1) @ v),
        (LEAK, lambda q, k, v: hide_future(scores_of(q, k), 2).softmax(-1) @ v),
        ("set them to -inf", lambda q, k, v: scores_of(q, k).tril().softmax(-1) @ v),
        ("sqrt(T)", lambda q, k, v: hide_future(q @ k.mT / q.shape[1] ** 0.5).softmax(-1) @ v),
        (NAN, lambda q, k, v: hide_future(scores_of(q, k), 0).softmax(-1) @ v),
        ("no longer sum to 1", lambda q, k, v: scores_of(q, k).softmax(-1).tril() @ v),
        ("over the queries", lambda q, k, v: hide_future(scores_of(q, k)).softmax(1) @ v),
        ("swapped", lambda q, k, v: hide_future(scores_of(k, q)).softmax(-1) @ v),
    ],
    "look_back": [
        ("the wrong way", lambda angle, back: look_back(angle, back).T),
        ("back is not used", lambda angle, back: turn(angle)),
        ("angle is not used", lambda angle, back: turn(back)),
        ("20 times the right one", lambda angle, back: 20 * turn(back * angle)),
        ("not a list", lambda angle, back: turn(back * angle).tolist()),
        ("dtype is torch.float64", lambda angle, back: turn(back * angle).double()),
    ],
    "window_attend": [
        (SCALE, lambda q, k, v, w: band(q @ k.mT, 0, w - 1).softmax(-1) @ v),
        ("window + 1", lambda q, k, v, w: band(scores_of(q, k), 0, w).softmax(-1) @ v),
        ("window - 1", lambda q, k, v, w: band(scores_of(q, k), 0, w - 2).softmax(-1) @ v),
        ("window is not used", lambda q, k, v, w: hide_future(scores_of(q, k)).softmax(-1) @ v),
        (LEAK, lambda q, k, v, w: band(scores_of(q, k), 1 - w, w - 1).softmax(-1) @ v),
        (NAN, lambda q, k, v, w: band(scores_of(q, k), 1, w - 1).softmax(-1) @ v),
    ],
    "merge_heads": [
        ("a transpose is missing", lambda x: x.reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3])),
        ("should stand together", lambda x: x.permute(0, 2, 3, 1).reshape(len(x), x.shape[2], -1)),
        ("mean of the heads", lambda x: x.mean(1)),
        ("Axes 1 and 2 are swapped", lambda x: x.transpose(1, 2).flatten(2).transpose(1, 2)),
        ("it should be", lambda x: x.transpose(1, 2)),
    ],
    "head_matrices": [
        ("consecutive", lambda w, H, h: w.view(H, 3, w.shape[1] // H, w.shape[1])[h]),
        ("H apart", lambda w, H, h: torch.stack([part[h::H] for part in w.chunk(3)])),
        ("next head", lambda w, H, h: torch.stack([part.chunk(H)[(h + 1) % H] for part in w.chunk(3)])),
        ("head before", lambda w, H, h: torch.stack([part.chunk(H)[h - 1] for part in w.chunk(3)])),
        ("Axes 1 and 2 are swapped", lambda w, H, h: w.view(3, H, -1, w.shape[1])[:, h].mT),
        ("the shape is", lambda w, H, h: w.view(3, H, -1, w.shape[1])[:, h].flatten(0, 1)),
        ("It raised", lambda w, H, h: w.view(3, H + 50, -1, w.shape[1])[:, h]),
    ],
    "reach_without_permute": [
        ("the right form, with permute", lambda T, H: torch.arange(T)[:, None] >= torch.arange(T)),
        ("head 0 alone", lambda T, H: torch.arange(T)[:, None] // H >= torch.arange(T)),
        ("one piece a head", lambda T, H: F.one_hot((torch.arange(T * H) // H).view(H, T), T).sum(0) > 0),
        ("not at all of them", lambda T, H: torch.arange(T * T).view(T, T) >= 0),
        ("row t is for output t", lambda T, H: reach(T, H).T),
        ("dtype is torch.int64", lambda T, H: reach(T, H).long()),
    ],
    "attention_entropy": [
        (NAN, lambda w: -(w * w.log()).sum(-1).mean((0, 2))),
        ("bits", lambda w: -(w * (w + 1e-30).log2()).sum(-1).mean((0, 2))),
        ("entropy of the mean row", lambda w: entr(w.mean((0, 2))).sum(-1)),
        ("sum over rows", lambda w: entr(w).sum((0, 2, 3))),
        ("Sum each row", lambda w: entr(w).mean((0, 2, 3))),
        ("-1 times", lambda w: torch.xlogy(w, w).sum(-1).mean((0, 2))),
        ("one number per sequence", lambda w: entr(w).sum(-1).mean((1, 2))),
        ("The shape is", lambda w: entr(w).sum(-1).mean(2)),
    ],
    "grouped_attend": [
        ("groups 0 0 1 1", lambda q, k, v: shared_attention(q, *(tiled(a, q) for a in (k, v)))),
        (LEAK, lambda q, k, v: shared_attention(q, k, v, causal=False)),
        (SCALE, lambda q, k, v: shared_attention(q, k, v, scale=1)),
        ("not by sqrt(D)", lambda q, k, v: shared_attention(q, k, v, scale=1 / q.shape[-1])),
        ("first group", lambda q, k, v: shared_attention(q, k, v, lambda a: a[:, :1].expand_as(q))),
        ("averaged", lambda q, k, v: shared_attention(q, k, v, lambda a: a.mean(1, True).expand_as(q))),
        ("Axes 1 and 2 are swapped", lambda q, k, v: shared_attention(q, k, v).transpose(1, 2)),
        ("It raised RuntimeError", lambda q, k, v: q @ torch.zeros(99, 99)),
    ],
    "rms_norm": [
        ("layer norm", lambda x, g, eps: F.layer_norm(x, g.shape, g, None, eps)),
        ("gamma is not used", lambda x, g, eps: x / (x**2).mean(-1, keepdim=True).add(eps).sqrt()),
        ("eps is not used", lambda x, g, eps: F.rms_norm(x, g.shape, g, 1e-9)),
        ("under the root", lambda x, g, eps: g * x / ((x**2).mean(-1, keepdim=True).sqrt() + eps)),
        ("take their mean", lambda x, g, eps: g * x / ((x**2).sum(-1, keepdim=True) + eps).sqrt()),
        ("root is missing", lambda x, g, eps: g * x / ((x**2).mean(-1, keepdim=True) + eps)),
        (LEAK, lambda x, g, eps: g * x / ((x**2).mean(1, keepdim=True) + eps).sqrt()),
        (LEAK, lambda x, g, eps: g * x / ((x**2).mean() + eps).sqrt()),
    ],
    "who_wrote": [
        ("mean of each part is still in it", lambda x, w, g, sigma: x @ (w * g / sigma)),
        ("running sums", lambda x, w, g, sigma: centred(x).cumsum(0) @ (w * g / sigma)),
        ("the logit without the part", lambda x, w, g, sigma: centred(x.sum(0) - x) @ (w * g / sigma)),
        ("shares of the logit", lambda x, w, g, sigma: centred(x) @ (w * g) / (centred(x).sum(0) @ (w * g))),
        ("gamma is not used", lambda x, w, g, sigma: centred(x) @ (w / sigma)),
        ("sigma is not used", lambda x, w, g, sigma: centred(x) @ (w * g)),
        ("by its own deviation", lambda x, w, g, sigma: F.layer_norm(x, x.shape[1:], eps=0) @ (w * g)),
        ("The shape is", lambda x, w, g, sigma: centred(x) * (w * g / sigma)),
    ],
    "gpt2_parameters": [
        ("count it once", lambda V, T, L, C: 2 * V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C),
        ("last layer norm", lambda V, T, L, C: V * C + T * C + L * (12 * C * C + 13 * C)),
        ("Query, key and value", lambda V, T, L, C: (V + T + 2) * C + L * (12 * C * C + 10 * C)),
        ("biases of the linear layers", lambda V, T, L, C: (V + T + 2) * C + L * (12 * C * C + 4 * C)),
        ("position embedding", lambda V, T, L, C: V * C + 2 * C + L * (12 * C * C + 13 * C)),
        ("two layer norms", lambda V, T, L, C: (V + T + 2) * C + L * (12 * C * C + 11 * C)),
        ("1 too large", lambda V, T, L, C: (V + T + 2) * C + L * (12 * C * C + 13 * C) + 1),
    ],
    "rotate": [
        ("the other way", lambda x: turned(x, sign=-1)),
        ("Pairs are neighbours", lambda x: turned(x, halves=True)),
        ("position 0 does not turn", lambda x: turned(x, start=1)),
        ("-2 i / D", lambda x: turned(x, power=1)),
        ("All pairs turn alike", lambda x: turned(x, power=0)),
        (LEAK, lambda x: turned(x) + x.mean(2, keepdim=True)),
        ("It should take the arguments of the stub", lambda: None),
    ],
    "schedule": [
        ("begins at 0", lambda n, w, a, b: cosine_schedule(n, w, a, b, first=0)),
        ("not at step 0", lambda n, w, a, b: cosine_schedule(n, w, a, b, begin=0)),
        ("floor belongs to step max_steps", lambda n, w, a, b: cosine_schedule(n, w, a, b, end=n - 1)),
        ("falls to 0", lambda n, w, a, b: cosine_schedule(n, w, a, 0.0)),
        ("warm-up is missing", lambda n, w, a, b: cosine_schedule(n, 0, a, b)),
        ("dtype is torch.float64", lambda n, w, a, b: cosine_schedule(n, w, a, b).double()),
        ("reversed", lambda n, w, a, b: cosine_schedule(n, w, a, b).flip(0)),
        ("The shape is", lambda n, w, a, b: cosine_schedule(n + 1, w, a, b)),
    ],
    "large_batch_gradient": [
        ("This is the sum", lambda d, n: sum(d)),
        ("weigh by size", lambda d, n: d.mean(0)),
        ("not of batches", lambda d, n: (d * n[:, None]).sum(0) / len(n)),
        ("Divide by the number of examples.", lambda d, n: n.float() @ d),
        ("the shape is", lambda d, n: (n / n.sum()) [None] @ d),
    ],
    "first_step": [
        ("has the size lr", lambda w, g, lr, decay: w * (1 - lr * decay) - lr * g),
        ("The decay is missing", lambda w, g, lr, decay: w - lr * g / g.abs()),
        ("not decay of it", lambda w, g, lr, decay: w * (1 - decay) - lr * g / g.abs()),
        ("go against it", lambda w, g, lr, decay: w * (1 - lr * decay) + lr * g / g.abs()),
        ("changes its input", lambda w, g, lr, decay: w.mul_(1 - lr * decay).sub_(lr * g / g.abs())),
    ],
    "clipped_mean": [
        ("clip every example before the mean", lambda G, n: clip_all(n, G.mean(0))[0]),
        ("each has a length of its own", lambda G, n: clip_all(n, G)[0].mean(0)),
        ("stays as it is", lambda G, n: torch.stack([clip_all(n, g, least=0)[0] for g in G]).mean(0)),
        ("changes the direction", lambda G, n: G.clamp(-n, n).mean(0)),
        ("This is the sum", lambda G, n: sum(clip_all(n, g)[0] for g in G)),
        ("The shape is", lambda G, n: torch.stack([clip_all(n, g)[0] for g in G])),
    ],
    "moving_average": [
        ("is missing", lambda g, beta: forgetful(g, beta, lambda t: 1)),
        ("1 - beta that of the new number", lambda g, beta: forgetful(g, 1 - beta)),
        ("at the first step t is 1", lambda g, beta: forgetful(g, beta, lambda t: 1 - beta ** (t + 1))),
        ("plain mean", lambda g, beta: torch.stack([g[: t + 1].mean() for t in range(len(g))])),
        ("by its place", by_place),
        ("not a list", lambda g, beta: forgetful(g, beta).tolist()),
    ],
    "nucleus": [
        ("The id that reaches p is dropped", lambda probs, p: topp(probs, p, lambda total: total < p)),
        ("One id too many", lambda probs, p: topp(probs, p, lambda t: F.pad(t < p, (2, -2), value=True))),
        ("must sum to 1 again", lambda probs, p: probs * (nucleus(probs, p) > 0)),
        ("put them back", lambda probs, p: nucleus(probs.sort(descending=True).values, p)),
        ("changes its input", lambda probs, p: probs.mul_(nucleus(probs, p) > 0)),
    ],
    "beam_search": [
        ("width is not used", lambda z, start, width: beam(z, start, 1)),
        ("probabilities do not", lambda z, start, width: beam(z.exp(), start, width)),
        ("least likely", lambda z, start, width: beam(z, start, width, largest=False)),
        ("start is missing", lambda z, start, width: beam(z, start, width)[1:]),
        ("not a list", lambda z, start, width: beam(z, start, width).tolist()),
        ("None that I know", lambda z, start, width: beam(z, start, width, grow=lambda total, new: new)),
    ],
    "strengths_after": [
        ("does not keep the order", lambda G, n: strengths(G, n, sort=False)),
        ("length of the whole matrix", lambda G, n: strengths(G, n, length=lambda s: s[0])),
        ("divided by its length first", lambda G, n: strengths(G, n, length=lambda s: 1.0)),
        ("before the iteration", lambda G, n: strengths(G, 0)),
        ("steps is not used", lambda G, n: strengths(G, 1)),
        ("reversed", lambda G, n: strengths(G, n).flip(0)),
        ("dtype is torch.float32", lambda G, n: strengths(G, n).float()),
    ],
    "bytes_sent": [
        ("takes 4 bytes", lambda n, p: ((p - 1) * n, 2 * (p - 1) * n // p)),
        ("goes round twice", lambda n, p: (4 * (p - 1) * n, 4 * (p - 1) * n // p)),
        ("processes - 1 turns", lambda n, p: (4 * p * n, 8 * n)),
        ("one piece in a turn", lambda n, p: (4 * (p - 1) * n, 8 * (p - 1) * n)),
        ("swapped", lambda n, p: (8 * (p - 1) * n // p, 4 * (p - 1) * n)),
        ("a tuple of 2, not a number", lambda n, p: 4 * n * (p - 1)),
    ],
    "cached_head": [
        (SCALE, lambda *a: with_cache(*a, scale=False)),
        ("P old positions and i + 1 new", lambda *a: with_cache(*a, diagonal=1)),
        (LEAK, lambda *a: with_cache(*a, diagonal=99)),
        ("old positions are not used", lambda *a: with_cache(*a[:4], *(past[:, :0] for past in a[4:]))),
        ("without the new positions", lambda *a: (with_cache(*a)[0], *a[4:])),
        ("It should return a tuple of 3, not a tensor", lambda *a: with_cache(*a)[0]),
        (NAN, lambda *a: with_cache(*a, diagonal=0)),
        ("None that I know", lambda *a: with_cache(*a, swap=True)),
    ],
    "byte_ids": [
        ("turn the table round", lambda raw: BYTE_ORDER[raw]),
        ("the bytes themselves", lambda raw: raw.clone()),
        ("have gaps", lambda raw: (raw + 223) % 256),
        ("come last, not first", lambda raw: (BYTE_ORDER.argsort() + 68).remainder(256)[raw]),
        ("The shape is", lambda raw: BYTE_ORDER.argsort()),
        ("dtype is torch.float32", lambda raw: BYTE_ORDER.argsort()[raw].float()),
    ],
    "bits_per_character": [
        ("divide the sums", lambda x, n: (x / n / math.log(2)).mean()),
        ("bits per token", lambda x, n: x.sum() / len(x) / math.log(2)),
        ("These are nats", lambda x, n: x.sum() / n.sum()),
        ("more bits than nats", lambda x, n: x.sum() / n.sum() * math.log(2)),
        ("The shape is", lambda x, n: x / n),
    ],
    "merge": [
        ("must not overlap", lambda i, a, b, new: merged(i, a, b, new, overlap=True)),
        ("The shape is", lambda i, a, b, new: merged(i, a, b, new, drop=False)),
        ("the pair b, a", lambda i, a, b, new: merged(i, b, a, new)),
        ("from left to right", lambda i, a, b, new: merged(i.flip(0), b, a, new).flip(0)),
        ("new is not used", lambda i, a, b, new: merged(i, a, b, a)),
        ("not a list", lambda i, a, b, new: merged(i, a, b, new).tolist()),
    ],
    "gpt2_head": [
        ("then k, then v", lambda *a: one_of_gpt2(*a, order="h q d")),
        ("The bias is missing", lambda x, w, b, n, h: one_of_gpt2(x, w, torch.zeros_like(b), n, h)),
        (SCALE, lambda *a: one_of_gpt2(*a, scale=lambda C, D: 1.0)),
        ("not sqrt(C)", lambda *a: one_of_gpt2(*a, scale=lambda C, D: C**0.5)),
        ("another head", lambda x, w, b, n, h: one_of_gpt2(x, w, b, n, n - 1 - h)),
        (LEAK, lambda *a: one_of_gpt2(*a, hidden=99)),
        (NAN, lambda *a: one_of_gpt2(*a, hidden=0)),
        ("The shape is", lambda *a: one_of_gpt2(*a).repeat(1, 1, 2)),
    ],
    "all_cuts": [
        ("the best cut alone", lambda z: cut_sum(z, lambda x: x.max())),
        ("their logarithms do not", lambda z: cut_sum(z, lambda x: x.sum())),
        ("single characters", lambda z: torch.trace(z)),
        ("as one piece", lambda z: z[0, len(z) - 1]),
        ("this is the probability", lambda z: cut_sum(z, lambda x: x.logsumexp(0)).exp()),
        ("None that I know", lambda z: cut_sum(z.T, lambda x: x.logsumexp(0))),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "name, says, function",
    [(name, says, f) for name, answers in WRONG.items() for says, f in answers],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_answer_is_told_what_is_wrong(name, says, function):
    said = verdict(name, function)
    assert said.startswith(f'Not right yet: {name}(*case("{name}", ')
    assert says in said.splitlines()[-1], said


def test_there_are_wrong_answers_to_every_exercise():
    assert set(WRONG) == set(EXERCISES)
    assert all(len(answers) >= 3 for answers in WRONG.values()) and sum(map(len, WRONG.values())) >= 60


def test_every_named_mistake_is_made_by_some_wrong_answer():
    said = "\n".join(verdict(name, f) for name, answers in WRONG.items() for _, f in answers)
    missing = [s for e in EXERCISES.values() for s in e.mistakes if s not in said]
    assert not missing


def test_the_head_of_page_03_has_three_faults(tmp_path):
    path = next(path for path in NOTEBOOKS if path.stem.startswith("03"))
    words = next(c["source"] for _, c in cells_of(path, "markdown") if "Three faults" in c["source"])
    faulty = re.findall(r"```python\n(.+?)\n```", words, re.DOTALL)[1]
    repairs = [
        ("T**0.5", "q.shape[-1] ** 0.5"), ("dim=1", "dim=2"),
        ("scores * past", "scores.masked_fill(past == 0, -float('inf'))"),
    ]  # fmt: skip
    for left in (*repairs, None):
        code = faulty
        for fault, repair in repairs:
            assert code.count(fault) == 1
            code = code if (fault, repair) == left else code.replace(fault, repair)
        said = judge(function_from(code, path, tmp_path))
        assert said.startswith("Not right yet" if left else "Solved"), left


# ---------------------------------------------------------------- the report


def test_a_report_shows_input_expected_got_and_the_largest_difference(monkeypatch):
    def causal_mean(x):
        return x.cumsum(1)

    x = torch.tensor([[[1.0, 2.0], [4.0, -3.0]]])  # (B, T, C)
    monkeypatch.setattr("helpers.exercises.check.case", lambda name, seed: (x,))
    assert judge(causal_mean).splitlines() == [
        'Not right yet: causal_mean(*case("causal_mean", 0))',
        "  x             float32 (1, 2, 2) [[[1.0000, 2.0000], [4.0000, -3.0000]]]",
        "  expected      float32 (1, 2, 2) [[[1.0000, 2.0000], [2.5000, -0.5000]]]",
        "  got           float32 (1, 2, 2) [[[1.0000, 2.0000], [5.0000, -1.0000]]]",
        "  difference    at most 2.5, at [0, 1, 0]: expected 2.5, got 5",
        "  diagnosis     This is the sum; divide by how many positions it holds.",
    ]


class Unhelpful:
    """An object that is callable and has no name."""

    def __call__(self, *args):
        return None


@pytest.mark.parametrize(
    "thing", [None, 3, "causal_mean", torch.zeros(3), len, print, Unhelpful(), lambda x: x, torch.softmax]
)
def test_what_is_no_exercise_gets_a_clear_answer(thing, capsys):
    check(thing)
    assert re.match(r"Not right yet: .+\n", capsys.readouterr().out)


GARBAGE = [
    3, "x", b"x", [], {}, {1}, (), object(), float("nan"), True, torch.zeros(0), torch.zeros(2, 3, 4, 5, 6),
    torch.tensor(float("nan")), torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.bool),
    torch.zeros(3).numpy(), [torch.zeros(2)], (torch.zeros(2), None), (1, 2, 3),
    Unhelpful(), torch.nn.Linear(2, 2), ...,
]  # fmt: skip


@every_exercise
def test_garbage_gets_a_clear_answer(name):
    for garbage in GARBAGE:
        said = verdict(name, lambda *args, garbage=garbage: garbage)
        assert said.startswith("Not solved yet" if garbage is ... else "Not right yet"), (garbage, said)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_garbage_after_right_answers_gets_a_clear_answer(name):
    for garbage in GARBAGE:
        seeds = iter(range(CASES))

        def answer(*args, seeds=seeds, garbage=garbage):
            return EXERCISES[name].slow(*args) if next(seeds, 0) < 3 else garbage

        assert verdict(name, answer).startswith("Not right yet"), garbage


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_garbage_after_wrong_answers_gets_a_clear_answer(name):
    for garbage in GARBAGE:
        seeds = iter(range(CASES))

        def answer(*args, seeds=seeds, garbage=garbage):
            right = EXERCISES[name].slow(*args)
            wrong = tuple(2 * part for part in right) if isinstance(right, tuple) else 2 * right
            return wrong if next(seeds, 9) < 3 else garbage

        assert verdict(name, answer).startswith("Not right yet"), garbage


def test_an_answer_of_nan_differs_without_limit():
    said = verdict("causal_mean", lambda x: x.cumsum(1) / 0)
    assert "  difference    at most inf, at [0, 0, 0]: " in said


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError(3), ZeroDivisionError(), RecursionError("deep")]
)
def test_what_raises_is_told_where(error):
    def causal_mean(x):
        raise error

    said = judge(causal_mean).splitlines()[-1]
    assert f"It raised {type(error).__name__} at `raise error`: " in said


def test_an_answer_with_a_gradient_is_judged_as_any_other():
    weight = torch.ones((), requires_grad=True)
    assert verdict("causal_mean", lambda x: causal_mean(x) * weight).startswith("Right, but with a loop")
