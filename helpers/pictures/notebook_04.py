"""The picture of notebook 04: every attention map of a model, one of them large."""

import matplotlib.pyplot as plt

from helpers.checks import check_whole
from helpers.pictures.shared import draw_attention
from helpers.pictures.style import ORANGE, WIDTH, to_numpy, written


def draw_attention_explorer(maps, tokens, layer, head):
    """One attention map, large, beside small ones of all heads; maps is a list, one (1, H, T, T) a layer.

    Raises ValueError for a layer or a head that there is not.
    """
    check_whole("layer", layer, least=0, most=len(maps) - 1)
    check_whole("head", head, least=0, most=maps[0].shape[1] - 1)
    weights = to_numpy(maps[layer][0, head])  # (T, T)
    T = len(tokens)
    fig = plt.figure(figsize=(WIDTH, 4.8), layout="none")  # constrained layout would take 0.1 s
    large, small = fig.add_axes([0.07, 0.1, 0.5, 0.78]), fig.add_axes([0.69, 0.1, 0.29, 0.78])
    draw_attention(large, weights, tokens, fontsize=8 if T > 20 else 9)
    best = int(weights[-1].argmax())
    goal = "itself" if best == T - 1 else f"“{written(tokens[best])}”, {T - 1 - best} back"
    large.set_title(
        f"Layer {layer}, head {head}: the last “{written(tokens[-1])}” looks most\n"
        f"at {goal}, with weight {weights[-1, best]:.2f}"
    )
    large.set(xlabel="key: the character looked at", ylabel="query: the character that looks")
    draw_all_heads(small, maps, layer, head)
    return fig


def draw_all_heads(ax, maps, layer, head):
    """Small attention maps: layers across, heads down, with a frame around one of them."""
    n_layer, n_head, T = len(maps), *maps[0].shape[1:3]
    gap = T / 12  # between the small maps
    for i in range(n_layer):
        for h in range(n_head):
            left, top = i * (T + gap), h * (T + gap)
            ax.imshow(
                to_numpy(maps[i][0, h]) ** 0.5,
                vmin=0,
                vmax=1,
                extent=(left, left + T, top + T, top),
                interpolation="nearest",
            )
    corner = layer * (T + gap), head * (T + gap)
    ax.add_patch(plt.Rectangle(corner, T, T, fill=False, edgecolor=ORANGE, linewidth=2.5, clip_on=False))
    ax.set(xlim=(0, n_layer * (T + gap) - gap), ylim=(n_head * (T + gap) - gap, 0), title="All heads")
    ax.set_xticks([i * (T + gap) + T / 2 for i in range(n_layer)], [f"layer {i}" for i in range(n_layer)])
    ax.set_yticks([h * (T + gap) + T / 2 for h in range(n_head)], [f"head {h}" for h in range(n_head)])
    ax.tick_params(length=0, labelsize=8)
    ax.spines[:].set_visible(False)
