"""Small training runs that several tests share."""

import torch

from helpers.data import train_val_split
from helpers.train import Callbacks, TrainConfig, train

CPU = torch.device("cpu")
IDS = torch.randint(11, (600,), generator=torch.Generator().manual_seed(5)).cumsum(0) % 11
TRAIN, VAL = train_val_split(IDS)


def short(**changes):
    """A run of a few steps, with everything in it that a run can have."""
    settings = dict(
        batch_size=4, max_steps=12, learning_rate=3e-3, min_learning_rate_ratio=0.1, warmup_steps=3,
        weight_decay=0.1, grad_clip=1.0, eval_interval=4, precision="float32", seed=7,
    )  # fmt: skip
    return TrainConfig(**settings | changes)


def run(model, config=None, train_ids=TRAIN, val_ids=VAL, history=None, **callbacks):
    """train without a bar; callbacks by their names, such as on_step=..."""
    config = config or short()
    return train(model, train_ids, val_ids, config, CPU, history, Callbacks(**callbacks), progress=False)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
