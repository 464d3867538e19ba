"""Pictures: images in a grid, how they are drawn glimpse by glimpse with the windows on them, and a page to scrub through.

    images, trajectory = model.sample(16, return_trajectory=True)
    fastdraw.view.save_grid(images, "samples.png")
    fastdraw.view.save_drawing(trajectory, "drawing.mp4", write_size=model.config.write_size)

`import fastdraw` imports nothing of this. Needs the extra: pip install "fastdraw-torch[train]".
"""

from fastdraw.view.attention import save_attention, save_attention_film
from fastdraw.view.drawing import save_drawing, save_strip
from fastdraw.view.grid import save_grid, save_pairs
from fastdraw.view.neighbours import nearest
from fastdraw.view.plot import save_kl
from fastdraw.view.record import Record, record
from fastdraw.view.webpage import Group, save_page

__all__ = [
    "Group",
    "Record",
    "nearest",
    "record",
    "save_attention",
    "save_attention_film",
    "save_drawing",
    "save_grid",
    "save_kl",
    "save_page",
    "save_pairs",
    "save_strip",
]
