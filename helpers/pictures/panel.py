"""The frame of a panel: sliders over a picture, live in a running notebook and a picture everywhere else."""

import base64
import html
from collections.abc import Callable

import ipywidgets as widgets
import torch
from IPython.display import display

from helpers.checks import check_kind, check_number, shown
from helpers.pictures.style import titles_of, to_png

PANEL_TEXT = "Panel: run this cell to move the sliders."
# Out of sight, but read aloud: ipywidgets gives an image no alternative text.
SPOKEN = '<span aria-live="polite" style="position:absolute; clip-path:inset(50%)">Picture: {}</span>'


class Panel(widgets.VBox):
    """Controls above one picture; the widgets in `below` come under it.

    One stored output serves all readers: the live widget where a kernel runs; on GitHub and in a
    reopened notebook the picture for the settings at the start, and its titles as text.
    """

    def __init__(self, controls, below=()):
        for control in controls:
            control.layout.width = "min(36em, 100%)"  # of the page, if that is narrower
            if hasattr(control, "description"):
                control.style.description_width = "13em"
        self.message = widgets.HTML()
        self.image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", width="750px"))
        self.spoken = widgets.HTML(layout=widgets.Layout(height="0", margin="0", overflow="hidden"))
        self.still = None  # (PNG, titles) for those who only read, where the live picture is not enough
        super().__init__([widgets.VBox([*controls, self.message]), self.image, self.spoken, *below])

    def show(self, fig):
        """Put a Figure in place of the picture. Its titles are what a screen reader says."""
        self.titles = titles_of(fig)
        self.spoken.value = SPOKEN.format(html.escape(self.titles))
        self.image.value = to_png(fig)

    def keep(self, fig):
        """Store another Figure than the live one, for those who only read."""
        self.still = to_png(fig), titles_of(fig)

    def say(self, text):
        """Put a sentence between the controls and the picture; an empty one takes it away."""
        self.message.value = f"<b>{html.escape(text)}</b>" if text else ""

    def _repr_mimebundle_(self, **kwargs):
        picture, titles = self.still or (self.image.value, self.titles)
        return {
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,
            },
            "image/png": base64.b64encode(picture).decode("ascii"),
            "text/plain": f"{PANEL_TEXT}\nPicture: {titles}",
        }

    def _ipython_display_(self, **kwargs):  # ipywidgets 7 asks for this one first, on Colab
        display(self._repr_mimebundle_(), raw=True)


def panel(draw, then=None, below=(), /, **controls):
    """A Panel that calls draw(**values) -> Figure, then then(**values), whenever a control changes.

    controls maps the arguments of draw to ipywidgets. A ValueError is shown as a sentence above the
    picture, which stays as it was. While .paused is true nothing is drawn; .redraw() makes up for it.
    """
    check_kind("draw", draw, Callable, "a function that returns a Figure")
    for name, control in controls.items():
        check_kind(name, control, widgets.DOMWidget, "a control, such as int_slider(1, 0, 9, 'label')")
    made = Panel(controls.values(), below)

    def redraw(change=None):
        if made.paused:
            return
        values = {name: control.value for name, control in controls.items()}
        try:
            made.show(draw(**values))
            if then is not None:
                then(**values)
            made.say("")
        except (ValueError, FloatingPointError, MemoryError, torch.OutOfMemoryError) as error:
            made.say(f"Not possible: {first_line(error)}")

    made.paused, made.redraw = False, redraw
    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return made


def first_line(error):
    """What an error says, for a panel: its first line, or its name if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def preformatted(text):
    """Text as HTML that keeps its line breaks, and wraps where the page ends."""
    return f'<pre style="white-space:pre-wrap; overflow-wrap:anywhere">{html.escape(text)}</pre>'


# ---------------------------------------------------------------- the controls


def check_range(label, value, low, high):
    """Raise ValueError unless value lies from low to high, all three finite numbers."""
    for name, number in (("low", low), ("high", high)):
        check_number(f"{name} of {label!r}", number)
    check_number(f"value of {label!r}", value, least=low, most=high)


def int_slider(value, low, high, label, step=1, live=True):
    """A slider over whole numbers. live=False redraws on release, for what takes over 0.1 s."""
    check_range(label, value, low, high)
    return widgets.IntSlider(
        value=value, min=low, max=high, step=step, description=label, continuous_update=live
    )


def float_slider(value, low, high, label, step=0.05, live=True):
    """A slider over real numbers. live=False redraws on release, for what takes over 0.1 s."""
    check_range(label, value, low, high)
    return widgets.FloatSlider(
        value=value, min=low, max=high, step=step, description=label, continuous_update=live
    )


def log_slider(value, low, high, label, live=True, step=0.1):
    """A slider over powers of ten: low, high and step are exponents, value is the number itself."""
    check_range(label, value, 10**low, 10**high)
    return widgets.FloatLogSlider(
        value=value,
        min=low,
        max=high,
        step=step,
        description=label,
        continuous_update=live,
        readout_format=".2g",
    )


def choice(options, value, label):
    """A menu; options is a list of values or of pairs (shown, value), or a dict from shown to value."""
    check_kind("options", options, list | dict, "a list, or a dict from what is shown to what is meant")
    pairs = options.items() if isinstance(options, dict) else options
    meant = [option[1] if isinstance(option, tuple) else option for option in pairs]
    if value not in meant:
        raise ValueError(f"value={shown(value)} of {label!r} must be among the options, {shown(meant)}.")
    return widgets.Dropdown(options=options, value=value, description=label)


def text_field(value, label):
    """A line of text, read when Enter is pressed or the field is left."""
    check_kind("value", value, str, "a text")
    return widgets.Text(value=value, description=label, continuous_update=False)
