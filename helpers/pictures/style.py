"""How every picture of the course looks: its colours, its size, its letters; and a Figure as PNG.

Colours are Okabe and Ito's, which differ for every common form of colour vision; a heat map's colours
differ in lightness too.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
import torch

COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#777777"]
BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GREY = COLOURS
WIDTH = 7.5  # inches at 100 dots each: a picture fits a notebook cell
plt.rcParams.update(
    {
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "legend.frameon": False,
        "image.cmap": "viridis",
    }
)


def to_png(fig):
    """Figure -> PNG bytes; the figure is closed, so that nothing draws it a second time."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=100)
    plt.close(fig)
    return buffer.getvalue()


def figure_title(fig, title):
    """A title over all axes of a figure, where the title of one axis would stand."""
    fig.suptitle(title, x=0.01, ha="left", fontsize=11)


def visible(token):
    """A token as it can be read on an axis: spaces and line breaks get a sign."""
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def tint(colour, strength=0.35):
    """A colour mixed with white: light enough to write on in black."""
    rgb = np.array(plt.matplotlib.colors.to_rgb(colour))
    return tuple(1 - strength * (1 - rgb))


def to_numpy(values):
    """A tensor on any device, or a list of numbers -> the array that matplotlib draws."""
    return values.detach().float().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)
