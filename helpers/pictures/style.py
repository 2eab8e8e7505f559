"""How every picture of the course looks: its colours, its size, its letters; and a Figure as PNG.

Colours are Okabe and Ito's, which differ for every common form of colour vision; a heat map's colours
differ in lightness too.
"""

import functools
import io

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

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


def titles_of(fig):
    """What a Figure states, for those who do not see it: its titles, on one line."""
    titles = [fig.get_suptitle(), *(ax.get_title("left") or ax.get_title() for ax in fig.axes)]
    return " ".join("; ".join(filter(None, titles)).split())


# Stored beside the picture, as its text: `make book` makes it the alternative text.
plt.Figure.__repr__ = lambda fig: f"Picture: {titles_of(fig)}"


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


@functools.cache
def code_points(path):
    """The code points of all letters in a font file."""
    return frozenset(get_font(path).get_charmap())


@functools.cache
def has_font(character):
    """Can a picture show this character? If another font must help out, it does so in all later pictures."""
    if ord(character) in code_points(findfont(FontProperties(family=["sans-serif"]))):
        return True
    for font in fontManager.ttflist:  # "Last Resort" has a box for everything, and letters for nothing
        if ord(character) in code_points(font.fname) and not font.name.startswith("Last Resort"):
            families = [*plt.rcParams["font.family"], font.name]
            plt.rcParams["font.family"] = list(dict.fromkeys(families))
            return True
    return False


def written(character):
    """A character as a picture writes it: where no installed font has it, its number, as in U+4E00."""
    return visible(character) if has_font(visible(character)) else f"U+{ord(character):04X}"


def in_title(text):
    """A text as a title writes it: as it is, but for characters that no installed font has."""
    return "".join(c if c.isspace() or has_font(c) else written(c) for c in text)


def in_cell(character):
    """The same for a narrow cell: the number alone, as in 4E00."""
    return written(character).removeprefix("U+")


def tint(colour, strength=0.35):
    """A colour mixed with white: light enough to write on in black."""
    rgb = np.array(plt.matplotlib.colors.to_rgb(colour))
    return tuple(1 - strength * (1 - rgb))


def to_numpy(values):
    """A tensor on any device, or a list of numbers -> the array that matplotlib draws."""
    return values.detach().float().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)
