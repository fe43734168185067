"""Frames, windows, videos, and a person at the keyboard."""

from metaduel.envs.core.lazy import moved

__getattr__ = moved(
    __name__,
    {
        "Canvas": "metaduel.envs.Canvas",
        "Frame": "metaduel.envs.render.screen.Frame",
        "HEIGHT": "metaduel.envs.render.screen.HEIGHT",
        "Point": "metaduel.envs.render.screen.Point",
        "RENDER_MODES": "metaduel.envs.render.screen.RENDER_MODES",
        "Screen": "metaduel.envs.render.screen.Screen",
        "write_video": "metaduel.envs.render.screen.write_video",
    },
)
