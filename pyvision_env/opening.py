"""The start of an episode: its runtime with the task's media, and what of them the first observation shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pyvision_env.config import EnvConfig, Limits
from pyvision_env.media import fit_pixels, resize_to_budget
from pyvision_env.progress import Progress
from pyvision_env.tools import new_labels
from pyvision_env.types import Observation, RGBArray, Task
from pyvision_env.wording import HeldImage, question_text, result_text

if TYPE_CHECKING:
    from pyvision_env.sandbox.interface import EpisodeLike, PictureLike, SandboxLike


def open_episode(task: Task, config: EnvConfig, sandbox: SandboxLike) -> tuple[EpisodeLike, Progress, Observation]:
    """Start the runtime of a task and write its first observation.

    Every given image is bound in the runtime at its full size. Images are shown within the pixel budget and as far as
    the image and token budgets reach; the text names those that are not shown. Where videos are shown, frames spread
    evenly over each follow, bound after the given images.

    Raises:
        MediaError: If an image or video of the task cannot be read.
        SandboxError: If no runtime can be had.
    """
    progress = Progress(task.id, config.limits)
    setting = config.media_in_prompt if task.media_in_prompt is None else task.media_in_prompt
    pictures = [sandbox.picture(source) for source in task.images]
    episode = sandbox.open(images=pictures, videos=task.videos)
    try:
        held, images = _given_images(pictures, config.limits, progress, shown=setting is not False)
        labels = [image.label for image in held if image.shown is not None]
        text = question_text(task, held, episode.videos)
        if setting is True:
            for index in range(len(episode.videos)):
                frames, names, note = _prompt_frames(episode, index, config, progress)
                images += frames
                labels += names
                text = f"{text}\n\n{note}" if note else text
    except BaseException:
        episode.close()
        raise
    first = Observation(text, tuple(images), tuple(labels), episode.videos, progress.turns_left)
    return episode, progress, first


def _given_images(
    pictures: Sequence[PictureLike], limits: Limits, progress: Progress, shown: bool
) -> tuple[list[HeldImage], list[RGBArray]]:
    held, images = [], []
    for index, picture in enumerate(pictures):
        width, height = picture.width, picture.height
        size = fit_pixels(width, height, limits.min_pixels, limits.max_pixels)
        show = shown and progress.fits(*size)
        if show:
            images.append(resize_to_budget(picture.pixels, limits.min_pixels, limits.max_pixels))
            progress.add_images(images[-1:])
        held.append(HeldImage(f"image_clue_{index}", width, height, size if show else None))
    return held, images


def _prompt_frames(
    episode: EpisodeLike, video: int, config: EnvConfig, progress: Progress
) -> tuple[list[RGBArray], list[str], str]:
    """Frames spread evenly over a video, their names, and a note of what they show."""
    limits, info = config.limits, episode.videos[video]
    size = fit_pixels(info.width, info.height, limits.min_pixels, limits.max_pixels)
    wanted = min(config.prompt_frames, info.num_frames, progress.room_for(*size))
    if wanted == 0:
        return [], [], f"No frame of video_clue_{video} is shown: the image budget is used up."
    if wanted <= limits.max_images_per_turn:
        results = [episode.frames(video=video, num=wanted, max_images=wanted)]
    else:
        # More than the runtime gives out at once: the same even spread, in several requests.
        times = np.linspace(0, max(0.0, info.duration_s - 1 / info.fps), wanted).tolist()
        step = limits.max_images_per_turn
        results = [episode.frames(video=video, times=times[at : at + step]) for at in range(0, wanted, step)]
    images = [image for result in results for image in result.images]
    progress.add_images(images)
    labels = new_labels(episode, len(images))
    return images, labels, f"video_clue_{video}:\n{result_text(results, labels, limits.max_text_chars)}"
