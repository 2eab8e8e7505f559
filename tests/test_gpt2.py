"""GPT-2's form: helpers/program/gpt2.py beside transformers, with small models of random weights.

Nothing touches the network: every folder is one that save_pretrained or the course wrote.
"""

import json
from pathlib import Path

import pytest
import torch
from conftest import randomise
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from helpers.checkpoint import load_checkpoint, save_checkpoint
from helpers.generate import generate, stream_text
from helpers.model import GPT, GPTConfig, count_parameters
from helpers.program import gpt2
from helpers.program.gpt2 import export_gpt2, from_gpt2, gpt2_config, load_gpt2
from helpers.tokenizer import BytePairTokenizer, CharTokenizer

logging.set_verbosity_error()
logging.disable_progress_bar()

# GPT-2s by what differs from the first: the form of their file has no other biases than these.
THEIRS = {
    "tied": dict(),
    "untied": dict(tie_word_embeddings=False),
    "relu, one layer": dict(activation_function="relu", n_layer=1, n_inner=32),
    "gelu, one head, untied": dict(activation_function="gelu", n_head=1, tie_word_embeddings=False),
    "wide": dict(
        activation_function="gelu_pytorch_tanh", n_embd=24, n_head=6, vocab_size=300, n_positions=40,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
}  # fmt: skip
# The course's GPTs by what differs from the course's own presets.
OURS = {
    "no biases": dict(),
    "tied": dict(tie_weights=True, activation="gelu"),
    "all biases, tied": dict(bias=True, qkv_bias=True, tie_weights=True, activation="gelu_tanh"),
    "biases but in q, k and v": dict(bias=True, n_head=4),
    "q, k and v alone, waves": dict(qkv_bias=True, position="sinusoidal", n_layer=3, n_embd=24),
}


def their_gpt2(**changes):
    settings = dict(vocab_size=65, n_positions=16, n_embd=8, n_layer=2, n_head=2)
    settings |= dict(bos_token_id=None, eos_token_id=None) | changes
    model = randomise(GPT2LMHeadModel(GPT2Config(**settings))).eval()
    varied(model.transformer.wpe, model.transformer.ln_f)
    return model


def our_gpt(**changes):
    settings = dict(vocab_size=65, block_size=16, n_layer=2, n_head=2, n_embd=8, bias=False, head_bias=False)
    model = GPT(GPTConfig(**settings | changes))
    fixed = model.position_embedding.weight.clone()
    randomise(model)
    if model.config.position == "sinusoidal":
        model.position_embedding.weight.data.copy_(fixed)
        model.token_embedding.weight.data.mul_(10)
    varied(model.position_embedding, model.ln_f)
    return model.eval()


def varied(positions, last_norm):
    """Positions that count, and no favourite tokens: else a random model writes one token for ever."""
    if positions.weight.requires_grad:
        positions.weight.data.mul_(10)
    if last_norm.bias is not None:
        last_norm.bias.data.mul_(0.1)


@torch.no_grad()
def assert_same(ours, theirs):
    """Logits equal to 1e-5, and the same greedy continuations of several prompts to the end of the block."""
    T, V = ours.config.block_size, ours.config.vocab_size
    idx = torch.randint(V, (5, T))
    torch.testing.assert_close(ours(idx)[0], theirs(idx).logits, rtol=1e-5, atol=1e-5)
    written = theirs.generate(
        idx[:, :3], attention_mask=torch.ones(5, 3), max_new_tokens=T - 3, do_sample=False, pad_token_id=0
    )
    assert generate(ours, idx[:, :3], T - 3, top_k=1).tolist() == written.tolist()
    assert len(set(written[:, 3:].flatten().tolist())) > 3, "else it would be easy to agree"


# ---------------------------------------------------------------- from GPT-2


@pytest.mark.parametrize("name", THEIRS)
def test_a_gpt2_is_loaded_from_its_state_dict_and_from_its_folder(name, tmp_path):
    theirs = their_gpt2(**THEIRS[name])
    ours = from_gpt2(theirs.state_dict(), theirs.config.to_dict())
    assert_same(ours, theirs)
    assert count_parameters(ours) == theirs.num_parameters()
    theirs.save_pretrained(tmp_path)
    again = load_gpt2(tmp_path)
    assert again.config == ours.config and not again.training
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), ours.parameters()))


def test_the_form_of_the_released_file(tmp_path):
    """Its names have no "transformer.", the masks stand in it, and the final layer does not."""
    theirs = their_gpt2()
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    released = {name.removeprefix("transformer."): w for name, w in weights.items()}
    for i in range(2):
        released[f"h.{i}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
        released[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(released, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same(load_gpt2(tmp_path), theirs)


def test_loading_leaves_the_random_state_alone():
    theirs = their_gpt2()
    before = torch.random.get_rng_state()
    from_gpt2(theirs.state_dict(), theirs.config.to_dict())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "change",
    [
        dict(n_inner=48),
        dict(activation_function="silu"),
        dict(scale_attn_by_inverse_layer_idx=True),
        dict(scale_attn_weights=False),
        dict(layer_norm_epsilon=1e-6),
        dict(add_cross_attention=True),
        dict(model_type="llama"),
        dict(attn_pdrop=0.2),
        dict(activation_function=["gelu"]),
        dict(attn_pdrop=[]),
        dict(n_inner="wide"),
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_the_course_cannot_do_is_refused_in_a_sentence(change):
    config = their_gpt2().config.to_dict()
    gpt2_config(config)
    with pytest.raises(ValueError) as caught:
        gpt2_config(config | change)
    said = str(caught.value)
    named = "dropout" if "attn_pdrop" in change else next(iter(change))
    assert f"cannot do {named}=" in said and said.endswith(".") and "\n" not in said


def test_weights_and_config_that_do_not_fit_are_refused():
    theirs = their_gpt2()
    weights, config = theirs.state_dict(), theirs.config.to_dict()
    for message, changes, drop in (
        ("larger model than the weights", dict(n_layer=50), ""),
        ("larger model than the weights", dict(vocab_size=10**12), ""),
        ("not those of the config", dict(n_layer=1), ""),
        ("not those of the config", dict(n_positions=15), ""),
        ("larger model than the weights", {}, "transformer.wte.weight"),
        ("larger model than the weights", {}, "transformer.h.1.ln_1.bias"),
        ("n_head=3 heads", dict(n_head=3), ""),
        ("no 'n_layer'", dict(n_layer=None), ""),
    ):
        changed = {k: v for k, v in (config | changes).items() if v is not None}
        with pytest.raises(ValueError, match=message) as caught:
            from_gpt2({k: w for k, w in weights.items() if k != drop}, changed)
        assert "\n" not in str(caught.value)


def test_a_final_layer_of_its_own_is_not_thrown_away():
    theirs = their_gpt2(tie_word_embeddings=False)
    config = theirs.config.to_dict() | dict(tie_word_embeddings=True)
    with pytest.raises(ValueError, match="final layer is not the table of tokens"):
        from_gpt2(theirs.state_dict(), config)


def test_weights_of_another_kind_are_refused_and_of_half_as_many_bits_are_read():
    theirs = their_gpt2()
    weights, config = theirs.state_dict(), theirs.config.to_dict()
    name = "transformer.wte.weight"
    for other in (weights[name].view(torch.int32), weights[name][None]):
        with pytest.raises(ValueError, match=f"The weights hold {name}"):
            from_gpt2(weights | {name: other}, config)
    half = from_gpt2({name: w.half() for name, w in weights.items()}, config)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    with pytest.raises(ValueError, match="is of another kind"):
        from_gpt2(theirs, config)


@pytest.mark.parametrize("damage", ["nothing there", "no weights", "half", "no JSON", "a list", "deep"])
def test_a_folder_that_is_none_is_refused(tmp_path, damage):
    folder = tmp_path / "gpt2"
    if damage != "nothing there":
        their_gpt2().save_pretrained(folder)
    file = folder / "model.safetensors"
    if damage == "no weights":
        file.unlink()
    elif damage == "half":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage != "nothing there":
        (folder / "config.json").write_text({"a list": "[]", "deep": "[" * 100_000}.get(damage, "{"))
    with pytest.raises(
        ValueError, match=r"cannot be read \(.*\): give a folder|is of another kind"
    ) as caught:
        load_gpt2(folder)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- to GPT-2


@pytest.mark.parametrize("name", OURS)
def test_a_model_of_the_course_opens_in_transformers(name, tmp_path, text):
    ours, tokenizer = our_gpt(**OURS[name]), CharTokenizer.from_text(text)
    export_gpt2(tmp_path / "out", ours, tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(theirs) is GPT2LMHeadModel
    assert_same(ours, theirs)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    again = load_gpt2(tmp_path / "out")
    assert_same(again, theirs)


def test_a_released_form_comes_back_as_it_was(tmp_path, text):
    theirs = their_gpt2(vocab_size=70)
    export_gpt2(
        tmp_path, from_gpt2(theirs.state_dict(), theirs.config.to_dict()), CharTokenizer.from_text(text)
    )
    again = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(w, again[name]) for name, w in theirs.state_dict().items())


def test_a_checkpoint_of_the_course_writes_the_same_text(tmp_path, text):
    for kind in (CharTokenizer.from_text(text), BytePairTokenizer.train(text, 300)):
        save_checkpoint(tmp_path / "my_gpt.safetensors", our_gpt(vocab_size=kind.vocab_size), kind)
        model, tokenizer, _ = load_checkpoint(tmp_path / "my_gpt.safetensors")
        export_gpt2(tmp_path / "out", model, tokenizer)
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        their_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
        prompt = "The sea\n"
        asked = their_tokenizer(prompt, return_tensors="pt")
        written = theirs.generate(**asked, max_new_tokens=4, do_sample=False, pad_token_id=0)[0]
        ours = prompt + "".join(stream_text(model, tokenizer, prompt, 4, top_k=1))
        assert their_tokenizer.decode(written).rstrip("\ufffd") == ours.rstrip("\ufffd")


@pytest.mark.parametrize("kind", ["characters", "byte pairs"])
def test_the_tokenizer_reads_alike(tmp_path, text, kind):
    ours = CharTokenizer.from_text(text) if kind == "characters" else BytePairTokenizer.train(text, 500)
    export_gpt2(tmp_path, our_gpt(vocab_size=ours.vocab_size), ours)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = [text[:3000], " two  spaces ", "\n\n", "it's n't , . !"]
    texts += ["наука ещё 猫 🙂 x\x1cy"] if kind == "byte pairs" else []
    for text in texts:
        ids = ours.encode(text).tolist()
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == ours.decode(ids) == text
    if kind == "characters":
        with pytest.raises(Exception, match=r"unknown|UNK"):  # the library's own kind of error
            theirs("猫")


def test_what_gpt2_does_not_have_is_refused_and_nothing_is_written(tmp_path, text):
    chars = CharTokenizer.from_text(text)
    with_bias = our_gpt(head_bias=True)
    for message, model, tokenizer in (
        ("final layer has no bias", with_bias, chars),
        ("more ids than the model", our_gpt(vocab_size=20), chars),
        ("halves of characters", our_gpt(), CharTokenizer(["a", "\ud800"])),
        (
            "one piece twice",
            our_gpt(vocab_size=300),
            BytePairTokenizer([(97, 98), (256, 99), (98, 99), (97, 258)]),
        ),
        ("of another kind", torch.nn.Linear(2, 2), chars),
    ):
        with pytest.raises(ValueError, match=message):
            export_gpt2(tmp_path / "out", model, tokenizer)
        assert not (tmp_path / "out").exists()
    with_bias.lm_head.bias.data.zero_()
    export_gpt2(tmp_path / "out", with_bias, chars)
    assert_same(with_bias, AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval())


@pytest.mark.parametrize("written", range(4))
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error")])
def test_a_disk_that_fills_up_leaves_no_model_that_opens(tmp_path, text, monkeypatch, written, error):
    chars = CharTokenizer.from_text(text)
    export_gpt2(tmp_path, our_gpt(), chars)
    room = iter(range(written))

    def until_it_is_full(write):
        def full(*args, **kwargs):
            if next(room, None) is None:
                raise error
            return write(*args, **kwargs)

        return full

    monkeypatch.setattr(gpt2, "save_file", until_it_is_full(gpt2.save_file))
    if isinstance(error, OSError):
        monkeypatch.setattr(Path, "write_bytes", until_it_is_full(Path.write_bytes))
    elif written:
        return  # that library writes one file alone
    with pytest.raises(ValueError, match="cannot be written"):
        export_gpt2(tmp_path, our_gpt(), chars)
    with pytest.raises(ValueError, match="cannot be read"):
        load_gpt2(tmp_path)
    assert not list(tmp_path.glob("*.partial"))


def test_what_stands_in_the_way_is_a_sentence(tmp_path, text):
    chars, other = CharTokenizer.from_text(text), tmp_path / "full" / "generation_config.json"
    (tmp_path / "file").touch()
    (tmp_path / "odd" / "config.json").mkdir(parents=True)
    other.parent.mkdir()
    other.touch()
    for name, says in (
        ("file", "cannot be written"),
        ("odd", "cannot be written"),
        ("full", "holds generation_"),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            export_gpt2(tmp_path / name, our_gpt(), chars)
        assert "\n" not in str(caught.value)
    assert list((tmp_path / "full").iterdir()) == [other]
    other.rename(other.with_name(".DS_Store"))  # of a Mac that showed the folder
    (tmp_path / "full" / "model.safetensors.1f.partial").touch()  # of an export that was killed
    export_gpt2(tmp_path / "full", our_gpt(), chars)
    with pytest.raises(ValueError, match="is of another kind"):
        export_gpt2(tmp_path / "new", our_gpt(), "abc")


def test_what_is_written_is_plain_json(tmp_path, text):
    export_gpt2(tmp_path, our_gpt(), CharTokenizer.from_text(text))
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["n_positions"] == 16 and config["tie_word_embeddings"] is False
    about = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert about["model_input_names"] == ["input_ids", "attention_mask"], "GPT-2 would add types of tokens"
