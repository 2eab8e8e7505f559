"""GPT-2's form, as Hugging Face's transformers reads and writes it: into the course's GPT, and out of it.

A folder holds config.json, model.safetensors and tokenizer.json. transformers itself is not needed here.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from helpers.checkpoint import plain
from helpers.checks import check_kind, shown
from helpers.files import cannot_be_written, whole_file, write_whole
from helpers.model import GPT, GPTConfig, numbers_of
from helpers.tokenizer import BytePairTokenizer, CharTokenizer

# Their names, in the order in which they are replaced, and ours.
NAMES = {
    "transformer.": "", "wte.": "token_embedding.", "wpe.": "position_embedding.", "h.": "blocks.",
    "attn.c_attn": "attn.qkv", "attn.c_proj": "attn.proj",
    "mlp.c_fc": "ffwd.widen", "mlp.c_proj": "ffwd.narrow",
}  # fmt: skip
LAYERS = "qkv.weight", "proj.weight", "widen.weight", "narrow.weight"  # they keep these as (in, out)
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}
FILES = "model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"  # of a folder
READ = ".json", ".safetensors", ".bin", ".txt", ".jinja"  # endings of what transformers may read there
# What GPT-2's config.json may say otherwise, and the course's GPT cannot do. None: no such line.
FIXED = {
    "model_type": (None, "gpt2"), "layer_norm_epsilon": (None, 1e-5), "scale_attn_weights": (None, True),
    "scale_attn_by_inverse_layer_idx": (None, False), "add_cross_attention": (None, False),
}  # fmt: skip
DROPOUTS = "resid_pdrop", "embd_pdrop", "attn_pdrop"

# ---------------------------------------------------------------- from GPT-2


def load_gpt2(folder):
    """The GPT, in evaluation mode, in a folder that save_pretrained wrote, or of GPT-2's released weights.

    Raises ValueError if something is missing, damaged, or more than the course's GPT can do.
    """
    check_kind("folder", folder, str | Path, 'the path of a folder, such as "build/gpt2"')
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        weights = load_file(Path(folder) / "model.safetensors")
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{folder} cannot be read ({reason}): give a folder with config.json and model.safetensors."
        ) from None
    return from_gpt2(weights, config)


def from_gpt2(weights, config):
    """The course's GPT, in evaluation mode, that computes what a GPT2LMHeadModel does.

    weights: its state dict, or that of the GPT2Model inside; config: a dict, as config.json has it. Raises
    ValueError if they do not fit, or ask for more than the course's GPT can do.
    """
    check_kind("weights", weights, dict, "a state dict")
    ours = gpt2_config(config)
    weights = gpt2_weights(weights)
    # Before anything is built: a made-up config could ask for a model of any size.
    held = sum(w.numel() for name, w in weights.items() if not ours.tie_weights or name != "lm_head.weight")
    if numbers_of(ours) > held:
        raise ValueError("The config is of a larger model than the weights: take both from one folder.")
    if ours.tie_weights and (table := weights.get("token_embedding.weight")) is not None:
        if not torch.equal(weights.setdefault("lm_head.weight", table), table):
            raise ValueError("The final layer is not the table of tokens: the config must not tie them.")
    with torch.random.fork_rng(devices=[]):  # the initialisation is overwritten: leave no trace
        model = GPT(ours)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"The weights are not those of the config ({reason}): take both from one folder."
        ) from None
    return model.eval()


def gpt2_weights(weights):
    """GPT-2's state dict under the names of helpers.model.GPT, its layers as (out, in), all in float32."""
    ours = {}
    for name, tensor in weights.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue  # the mask, which older files hold as well
        if tensor.dim() > 2 or not tensor.is_floating_point():
            raise ValueError(
                f"The weights hold {name}, {tensor.dtype} {tuple(tensor.shape)}: none of GPT-2's."
            )
        name = renamed(name)
        ours[name] = (tensor.T if name.endswith(LAYERS) else tensor).float()
    return ours


def renamed(name):
    """The name that helpers.model.GPT gives to a parameter of GPT-2."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


def gpt2_config(theirs):
    """GPTConfig of a dict as config.json has it. Raises ValueError for what the course's GPT cannot do."""
    check_kind("config", theirs, dict, "what config.json holds")
    for name, allowed in FIXED.items():
        if theirs.get(name) not in allowed:
            raise refused(name, theirs[name], shown(allowed[1]))
    activation = theirs.get("activation_function", "gelu_new")
    if activation not in list(ACTIVATIONS):  # a list: what cannot be a key is no activation either
        raise refused("activation_function", activation, ", ".join(ACTIVATIONS))
    rates = [theirs.get(name, 0.1) for name in DROPOUTS]
    if rates != rates[:1] * 3:
        raise refused("dropout", dict(zip(DROPOUTS, rates)), "one rate for all three")
    try:
        config = GPTConfig(
            vocab_size=theirs["vocab_size"], block_size=theirs["n_positions"], n_layer=theirs["n_layer"],
            n_head=theirs["n_head"], n_embd=theirs["n_embd"], dropout=rates[0],
            activation=ACTIVATIONS[activation], qkv_bias=True, head_bias=False,
            tie_weights=theirs.get("tie_word_embeddings", True),
        )  # fmt: skip
    except KeyError as error:
        raise ValueError(f"The config has no {error}: give what config.json of a GPT-2 holds.") from None
    if theirs.get("n_inner") not in (None, 4 * config.n_embd):
        raise refused("n_inner", theirs["n_inner"], "four times n_embd")
    return config


def refused(name, value, allowed):
    """The ValueError for a setting of GPT-2 that the course's GPT does not have."""
    return ValueError(f"The course's GPT cannot do {name}={shown(value)}: it knows {allowed}.")


# ---------------------------------------------------------------- to GPT-2


def export_gpt2(folder, model, tokenizer):
    """Write a GPT and its tokenizer as a folder that transformers opens; no code and no pickle in it.

    AutoModelForCausalLM.from_pretrained(folder) has the same logits, AutoTokenizer the same ids. Raises
    ValueError for what GPT-2 does not have, and if the folder holds another model or cannot be written.
    config.json goes first and comes last: no model opens from half a folder.
    """
    check_kind("folder", folder, str | Path, 'the path of a folder, such as "build/my_gpt2"')
    folder, model = Path(folder), plain(model)
    check_kind("model", model, GPT, "a GPT")
    check_kind("tokenizer", tokenizer, CharTokenizer | BytePairTokenizer, "a tokenizer of the course")
    weights, tokens = weights_for_gpt2(model), tokenizer_json(tokenizer)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError("The tokenizer has more ids than the model: give the one that it was trained with.")
    try:
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        others = [name for name in sorted(there - set(FILES)) if name.endswith(READ)]
        if others:
            raise ValueError(
                f"{folder} holds {others[0]}, which transformers may read: give an empty folder."
            )
        (folder / "config.json").unlink(missing_ok=True)
    except OSError as error:
        raise cannot_be_written(folder, error) from None
    with whole_file(folder / "model.safetensors") as partial:
        try:
            save_file(weights, partial, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from None
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
        "model_max_length": model.config.block_size,
        # transformers 4 would add the types of tokens, to which GPT-2 gives rows of its table.
        "model_input_names": ["input_ids", "attention_mask"],
    }  # fmt: skip
    write_json(folder / "tokenizer.json", tokens)
    write_json(folder / "tokenizer_config.json", about)
    write_json(folder / "config.json", config_for_gpt2(model.config))


def write_json(path, value):
    """Write a value as JSON, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def weights_for_gpt2(model):
    """The state dict of a GPT under GPT-2's names. A bias that it does not have becomes zeros.

    A layer with a bias of zeros computes what one without computes. A final layer has no bias in GPT-2:
    raises ValueError if the model has one that is not zero.
    """
    bias = model.lm_head.bias
    if bias is not None and bias.any():
        raise ValueError("GPT-2's final layer has no bias: train with head_bias=False to export the model.")
    weights = {}
    for name, tensor in with_all_biases(model).items():
        tensor = tensor.T if name.endswith(LAYERS) else tensor
        for theirs, ours in reversed(NAMES.items()):
            if ours:
                name = name.replace(ours, theirs)
        name = name if name == "lm_head.weight" else f"transformer.{name}"
        weights[name] = tensor.detach().float().cpu().clone(memory_format=torch.contiguous_format)
    if model.config.tie_weights:
        del weights["lm_head.weight"]  # transformers takes the table of tokens
    return weights


def with_all_biases(model):
    """The state dict of a GPT with zeros in place of the biases that it does not have, and no head bias."""
    weights = {name: w for name, w in model.state_dict().items() if name != "lm_head.bias"}
    for name, module in model.named_modules():
        if getattr(module, "bias", 0) is None and name != "lm_head":
            weights[f"{name}.bias"] = torch.zeros(len(module.weight))
    return weights


def config_for_gpt2(config):
    """What config.json says of a GPTConfig: a dict."""
    theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    return {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size, "n_positions": config.block_size, "n_layer": config.n_layer,
        "n_head": config.n_head, "n_embd": config.n_embd, "activation_function": theirs[config.activation],
        "layer_norm_epsilon": 1e-5, "tie_word_embeddings": config.tie_weights,
        "bos_token_id": None, "eos_token_id": None,
    } | dict.fromkeys(DROPOUTS, config.dropout)  # fmt: skip


# ---------------------------------------------------------------- tokenizers

# BytePairTokenizer.WORDS for the library, which means less by \s and other things by \w.
LIBRARY_WORDS = r" ?[\p{L}\p{N}_]+| ?[^\s\x1c-\x1f\p{L}\p{N}_]+|[\s\x1c-\x1f]+"


def _byte_letters():
    """{byte: the letter that stands for it in GPT-2's files}, in the order of GPT-2's ids.

    A byte that is a visible character in Latin-1 is its own letter; the others follow from U+0100 on.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(others)}


BYTE_LETTERS = _byte_letters()


def byte_letters(raw):
    """bytes -> the letters that stand for them in GPT-2's files; a space is Ġ."""
    return "".join(BYTE_LETTERS[byte] for byte in raw)


def tokenizer_json(tokenizer):
    """What tokenizer.json says of a tokenizer of the course: a dict; the ids stay what they are."""
    if isinstance(tokenizer, CharTokenizer):
        if any("\ud800" <= char <= "\udfff" for char in tokenizer.chars):
            raise ValueError(
                "The tokenizer holds halves of characters, which no file of JSON can: clean the text."
            )
        vocabulary = {char: i for i, char in enumerate(tokenizer.chars)}
        model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "unknown"}  # in no vocabulary
        cut, decoder = [split(r"[\s\S]")], {"type": "Fuse"}
    else:
        pieces = [byte_letters(piece) for piece in tokenizer.pieces]
        vocabulary = {piece: i for i, piece in enumerate(pieces)}
        if len(vocabulary) < len(pieces):
            raise ValueError(
                "The tokenizer has one piece twice, which GPT-2 cannot: learn its merges by train."
            )
        merges = [[pieces[a], pieces[b]] for a, b in tokenizer.merges]
        model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        cut, decoder = [split(LIBRARY_WORDS), level], level
    return {
        "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cut}, "decoder": decoder, "model": model,
    }  # fmt: skip


def split(pattern):
    """A step of tokenizer.json: cut where the pattern matches, and keep every piece."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
