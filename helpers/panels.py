"""Sliders over a picture: a panel is live in a running notebook and a picture everywhere else."""

import base64
import html

import ipywidgets as widgets
from IPython.display import display

from helpers.plots import to_png

PANEL_TEXT = "Panel: run this cell to move the sliders."


class Panel(widgets.VBox):
    """Controls above one picture.

    One stored output serves all readers: the live widget where a kernel runs; on GitHub and in a
    reopened notebook the picture for the settings at the start; and a fixed line for nbval.
    """

    def __init__(self, controls, image, **kwargs):
        super().__init__([widgets.VBox(controls), image], **kwargs)
        self.image = image

    def _repr_mimebundle_(self, **kwargs):
        return {
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,
            },
            "image/png": base64.b64encode(self.image.value).decode("ascii"),
            "text/plain": PANEL_TEXT,
        }

    def _ipython_display_(self, **kwargs):  # ipywidgets 7 asks for this one first, on Colab
        display(self._repr_mimebundle_(), raw=True)


def panel(draw, **controls):
    """A Panel that calls draw(**values) -> Figure whenever a control changes.

    controls maps the arguments of draw to ipywidgets. A ValueError from draw is shown as a sentence
    in place of the picture; the last good picture stays behind it.
    """
    image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", width="750px"))
    message = widgets.HTML()
    for name, control in controls.items():
        control.style.description_width = "11em"
        control.layout.width = "min(34em, 100%)"

    def redraw(change=None):
        try:
            image.value = to_png(draw(**{name: c.value for name, c in controls.items()}))
            message.value = ""
        except ValueError as error:
            message.value = f"<b>Not possible:</b> {html.escape(str(error))}"

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return Panel([*controls.values(), message], image)


def int_slider(value, low, high, label, step=1, live=True):
    """A slider over whole numbers. live=False redraws on release, for what takes over 0.1 s."""
    return widgets.IntSlider(
        value=value, min=low, max=high, step=step, description=label, continuous_update=live
    )


def float_slider(value, low, high, label, step=0.05, live=True):
    """A slider over real numbers. live=False redraws on release, for what takes over 0.1 s."""
    return widgets.FloatSlider(
        value=value, min=low, max=high, step=step, description=label, continuous_update=live
    )


def log_slider(value, low, high, label, live=True):
    """A slider over powers of ten: low and high are exponents, value is the number itself."""
    return widgets.FloatLogSlider(
        value=value, min=low, max=high, step=0.1, description=label, continuous_update=live,
        readout_format=".2g",
    )


def choice(options, value, label):
    """A menu; options is a list, or a dict from what is shown to what is meant."""
    return widgets.Dropdown(options=options, value=value, description=label)


def text_field(value, label):
    """A line of text, read when Enter is pressed or the field is left."""
    return widgets.Text(value=value, description=label, continuous_update=False)
