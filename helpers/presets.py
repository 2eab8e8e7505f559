"""Named configurations: the course's own, the five systems that it follows, and two yardsticks.

A preset is data: changes to the defaults of GPTConfig and TrainConfig, and what its source claims.
All are initialised as GPT-2 was and scale scores by 1/sqrt(head size), whatever their source did.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Settings and claims. A claim is None where the source states none; losses are in nats."""

    summary: str
    model: dict
    train: dict
    tokenizer: str = "char"  # or byte-pair
    max_chars: int | None = None  # of the corpus; None takes all of it
    claimed_parameters: float | None = None
    claimed_val: float | None = None
    claim: str = ""  # the claim as the source words it, shortened
    claimed_on: str = "Tiny Shakespeare"
    address: str = ""  # of the source, where it is certain
    check: str = ""  # what to look at twice


# What the scripts of the genre share: no schedule, no clipping, AdamW as PyTorch has it.
SCRIPT = dict(batch_size=64, max_steps=5000, learning_rate=3e-4)

# The five from-scratch GPTs that the course follows; all are presets.
SYSTEMS = "neurongpt", "gpt2-style", "gpt-from-scratch", "char-gpt", "gptiny"
SIX_LAYERS = dict(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.2)  # three of them share this

# fmt: off
HALF_AN_HOUR = dict(  # for those on two cores
    batch_size=16, max_steps=1150, learning_rate=3e-3, min_learning_rate_ratio=0.0, warmup_steps=50,
    weight_decay=0.1, beta2=0.99, grad_clip=1.0, optimizer="muon", muon_learning_rate=0.03,
    eval_interval=230, compile=False,
)

PRESETS = {
    "course-cpu": Preset(
        "the course's own, for a laptop",
        model=dict(n_layer=4, n_head=4, n_embd=128, block_size=64, bias=False, head_bias=False),
        train=dict(
            batch_size=64, max_steps=800, learning_rate=5e-3, min_learning_rate_ratio=0.0,
            warmup_steps=50, weight_decay=0.1, beta2=0.99, grad_clip=1.0,
            optimizer="muon", muon_learning_rate=0.04, eval_interval=200, compile=False,
        ),
    ),
    "course-sprint": Preset(
        "the course's own, for ten seconds on a laptop",
        model=dict(n_layer=2, n_head=4, n_embd=128, block_size=32, bias=False, head_bias=False),
        train=dict(
            batch_size=64, max_steps=300, learning_rate=4e-3, min_learning_rate_ratio=0.0,
            warmup_steps=10, weight_decay=0.1, beta2=0.95, grad_clip=1.0,
            optimizer="muon", muon_learning_rate=0.06, eval_interval=100, compile=False,
        ),
    ),
    "course-long": Preset(
        "the course's own, for a quarter of an hour on two cores",
        model=dict(
            n_layer=8, n_head=4, n_embd=128, block_size=128, dropout=0.1, bias=False, head_bias=False,
        ),
        train=dict(
            batch_size=32, max_steps=3100, learning_rate=4e-3, min_learning_rate_ratio=0.0,
            warmup_steps=50, weight_decay=0.05, beta2=0.99, grad_clip=1.0,
            optimizer="muon", muon_learning_rate=0.04, eval_interval=310, compile=False,
        ),
    ),
    "course-six-layers": Preset(
        "the model that three of the systems share, by a recipe of the course",
        model=SIX_LAYERS,
        train=HALF_AN_HOUR,
    ),
    "course-three-layers": Preset(
        "the model of gptiny by the same recipe",
        model=SIX_LAYERS | dict(n_layer=3, n_head=4),
        train=HALF_AN_HOUR | dict(max_steps=2300),  # half the layers, twice the steps
    ),
    "course-gpu": Preset(
        "the course's own, for a GPU",
        model=dict(
            n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.3, activation="gelu",
            bias=False, head_bias=False,
        ),
        train=dict(
            batch_size=64, max_steps=2500, learning_rate=1e-3, min_learning_rate_ratio=0.0,
            warmup_steps=100, weight_decay=0.1, beta2=0.99, grad_clip=1.0, eval_interval=250,
        ),
    ),
    "neurongpt": Preset(
        "NeuronGPT, as its code has it",
        model=SIX_LAYERS,
        train=SCRIPT | dict(eval_interval=500),
        claimed_parameters=10.79e6,
        claimed_val=1.4900,
        claim="best validation loss 1.4900 at step 3000, then overfitting: 1.5801 at step 4999",
        address="https://github.com/chenatoast/NeuronGPT",
        check="Its README describes sinusoidal positions, 8 heads and width 256; its code has none of these.",
    ),
    "gpt2-style": Preset(
        "the 124M shape of GPT-2 on one short story",
        model=dict(
            vocab_size=50257, n_layer=12, n_head=12, n_embd=768, block_size=256, dropout=0.1,
            activation="gelu_tanh", qkv_bias=True, head_bias=False,
        ),
        train=dict(
            batch_size=2, max_steps=90, learning_rate=4e-4,
            weight_decay=0.1, eval_interval=9,
        ),
        tokenizer="byte-pair",
        max_chars=20_480,
        claimed_parameters=124e6,
        claim="the text gets more coherent towards later epochs",
        claimed_on="one story of 20 KB",
        check="The final layer is not tied to the embedding, so there are more than 124 M parameters.",
    ),
    "gpt-from-scratch": Preset(
        "five stages from bigram to GPT",
        model=SIX_LAYERS,
        train=SCRIPT | dict(eval_interval=500),
        claimed_parameters=10_788_929,
        claimed_val=1.4734,
        claim="validation loss 1.4734 at step 4500, in 8 minutes on one L40S",
        address="https://github.com/BlazeWild/GPT_FROM_SCRATCH",
        check="Its code scales the scores by n_embd ** -0.5, where the head size belongs.",
    ),
    "char-gpt": Preset(
        "the educational script, with head-size scaling",
        model=SIX_LAYERS,
        train=SCRIPT | dict(eval_interval=500),
    ),
    "gptiny": Preset(
        "three layers of four heads",
        model=dict(n_layer=3, n_head=4, n_embd=384, block_size=256, dropout=0.2),
        train=SCRIPT | dict(weight_decay=0.0, eval_interval=500),
        claimed_parameters=10.8e6,
        claim="about 10.8 M parameters, final loss 1.4 to 1.6, in 30 to 45 minutes on a modern GPU",
        check="It has three layers; six of them would have 10.8 M.",
    ),
    "nanogpt-char": Preset(
        "yardstick: nanoGPT's character model",
        model=dict(
            n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.2, activation="gelu",
            bias=False, head_bias=False, tie_weights=True,
        ),
        train=dict(
            batch_size=64, max_steps=5000, learning_rate=1e-3, min_learning_rate_ratio=0.1,
            warmup_steps=100, weight_decay=0.1, beta2=0.99, grad_clip=1.0, eval_interval=250,
        ),
        claimed_val=1.4697,
        claim="best validation loss 1.4697 after about 3 minutes on an A100",
        address="https://github.com/karpathy/nanoGPT",
    ),
    "nanogpt-cpu": Preset(
        "yardstick: nanoGPT's recipe for a laptop",
        model=dict(
            n_layer=4, n_head=4, n_embd=128, block_size=64, activation="gelu", bias=False,
            head_bias=False, tie_weights=True,
        ),
        train=dict(
            batch_size=12, max_steps=2000, learning_rate=1e-3, min_learning_rate_ratio=0.1,
            warmup_steps=100, weight_decay=0.1, beta2=0.99, grad_clip=1.0, eval_interval=250,
        ),
        claimed_val=1.88,
        claim="validation loss of about 1.88 after about 3 minutes on a MacBook",
        address="https://github.com/karpathy/nanoGPT",
    ),
}
