"""Pictures: images in a grid, and how they are drawn glimpse by glimpse, with the windows on them.

    images, trajectory = model.sample(16, return_trajectory=True)
    fastdraw.view.save_grid(images, "samples.png")
    fastdraw.view.save_drawing(trajectory, "drawing.gif", write_size=model.config.write_size)

`import fastdraw` imports nothing of this. Needs the extra: pip install "fastdraw[train]".
"""

from fastdraw.view.drawing import save_drawing, save_strip
from fastdraw.view.grid import save_grid

__all__ = ["save_drawing", "save_grid", "save_strip"]
