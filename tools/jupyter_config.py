"""What `make lab` adds to JupyterLab: a saved notebook holds pictures in place of its panels.

A panel lives in its kernel. JupyterLab would store a reference to it and, when the notebook is opened
again, say "model not found" instead of showing the picture that is stored beside the reference.
"""

WIDGET = "application/vnd.jupyter.widget-view+json"


def pictures_for_panels(model, **_):
    """Drop the reference from every output that has a picture, in a notebook about to be saved."""
    if model["type"] != "notebook" or not model.get("content"):
        return
    for cell in model["content"]["cells"]:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"].pop(WIDGET, None)


if "get_config" in globals():  # there when JupyterLab reads this file
    get_config().ContentsManager.pre_save_hook = pictures_for_panels  # noqa: F821
    get_config().LabApp.news_url = None  # no question about news, no request for them  # noqa: F821
