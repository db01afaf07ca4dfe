"""What tests read off a figure."""

import numpy as np
from matplotlib.axis import Axis, Tick
from matplotlib.text import Text


def texts_of(display):
    """Return all texts of a display's figure that are seen, once it is drawn."""
    display.figure_.canvas.draw()
    found = [text for text in display.figure_.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text.get_text() for text in found]


def captions_of(display):
    """Return what stands above each sample."""
    return [axis.get_title() for axis in display.axes_.flat if axis.get_title()]


def pixels_of(axis):
    """Return the picture that axes show."""
    return np.asarray(axis.get_images()[0].get_array())


def overlaps(display):
    """Return pairs of texts of a figure that overlap, and texts that leave it."""
    display.figure_.canvas.draw()
    renderer = display.figure_.canvas.get_renderer()
    whole = display.figure_.bbox
    found, boxes = [], []
    for text in display.figure_.findobj(Text):
        if not text.get_visible() or not text.get_text().strip() or not _is_shown(text):
            continue
        box = text.get_window_extent(renderer)
        if box.x0 < whole.x0 - 1 or box.x1 > whole.x1 + 1 or box.y0 < whole.y0 - 1 or box.y1 > whole.y1 + 1:
            found.append(("beyond the figure", text.get_text()))
        boxes.append((box, text.get_text()))
    for number, (box, text) in enumerate(boxes):
        for other, said in boxes[number + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            if across > 2 and down > 2:
                found.append((text, said))
    return found


def _is_shown(text):
    """Tell whether a text is drawn: axes that are off hide their ticks and labels, and no tick is beyond the ends."""
    for axis in text.figure.findobj(Axis):
        if any(text in (tick.label1, tick.label2) for tick in axis.findobj(Tick)):
            low, high = sorted(axis.get_view_interval())
            drawn = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            return axis.axes.axison and any(text in (tick.label1, tick.label2) for tick in drawn)
    axes = text.axes
    return axes is None or axes.axison or text in axes.texts or text is axes.title
