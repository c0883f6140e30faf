from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import BLUE, GREEN, RED, answer, clip, code, image_task, plain, png, video_task

from pyvision_env.types import Task, VideoSource

SHOW = code("plt.imshow(image_clue_0)\nplt.show()")


def test_the_first_observation_shows_the_question_and_the_images(make: Any) -> None:
    env = make(image_task(images=(png(RED), png(GREEN, 3000, 2000))))
    obs, info = env.reset()
    assert obs in env.observation_space
    assert obs["text"].startswith("Which animal is it?\n\nA. a cat\nB. a dog")
    assert "image_clue_0: 120x80 pixels, shown here" in obs["text"]
    assert "image_clue_1: 3000x2000 pixels, shown here at" in obs["text"]
    assert obs["images"][0].shape == (80, 120, 3)
    assert obs["images"][1].shape[0] * obs["images"][1].shape[1] <= 2_000_000
    assert obs["videos"] == ()
    assert obs["turns_left"] == 4
    assert info["num_images"] == 2
    assert info["visual_tokens"] > 12


def test_options_in_the_wording_are_not_repeated(make: Any) -> None:
    task = Task("t", "Is it\n(A) a cat or\n(B) a dog?", "B", images=(png(RED),), options=("a cat", "a dog"))
    assert make(task).reset()[0]["text"].count("a cat") == 1


def test_held_images_are_named_and_bound_but_not_shown(make: Any) -> None:
    env = make(media_in_prompt=False)
    obs, info = env.reset()
    assert obs["images"] == ()
    assert "image_clue_0: 120x80 pixels, not shown" in obs["text"]
    assert info["num_images"] == info["visual_tokens"] == 0
    obs = env.step(code("print(image_clue_0.size)\nimage_clue_0"))[0]
    assert "(120, 80)" in obs["text"]
    assert "image_clue_1" in obs["text"]
    assert np.array_equal(obs["images"][0], plain(RED))


def test_every_image_is_bound_in_order_of_appearance(make: Any) -> None:
    env = make(image_task(images=(png(RED), png(GREEN))))
    env.reset()
    env.step(code("from PIL import Image\nImage.new('RGB', (90, 60), (0, 0, 255))"))
    obs = env.step(code("print([image.getpixel((0, 0)) for image in (image_clue_0, image_clue_1, image_clue_2)])"))[0]
    assert str([RED, GREEN, BLUE]) in obs["text"]
    assert env.turns[0].observation.labels == ("image_clue_2",)


def test_videos_are_described_and_held_in_the_runtime_by_default(make: Any) -> None:
    env = make(video_task())
    obs, info = env.reset()
    assert obs in env.observation_space
    assert obs["images"] == ()
    video = obs["videos"][0]
    assert (video["width"], video["height"], video["num_frames"]) == (96, 64, 20)
    assert float(video["fps"]) == pytest.approx(10)
    assert "video_clue_0: 96x64 pixels, 2.00 seconds, 10.00 frames per second, 20 frames" in obs["text"]
    obs, _, _, _, info = env.step('<frames>{"video": 0, "indices": [0, 19]}</frames>')
    assert [round(image.mean() / 10) for image in obs["images"]] == [0, 19]
    assert info["action"] == "frames"
    assert env.step(code("print(len(video_clue_0), image_clue_1.size)"))[0]["text"].startswith("20 (96, 64)")


def test_shown_videos_come_with_frames(make: Any) -> None:
    env = make(video_task(images=(png(RED),)), media_in_prompt=True, prompt_frames=3)
    obs, info = env.reset()
    assert len(obs["images"]) == info["num_images"] == 4
    assert env.first_observation.labels == tuple(f"image_clue_{k}" for k in range(4))
    assert obs["images"][1].mean() < obs["images"][3].mean()


def test_more_frames_than_a_turn_may_fetch_can_be_shown_at_the_start(make: Any) -> None:
    env = make(video_task(), media_in_prompt=True, prompt_frames=20)
    obs, info = env.reset()
    assert [round(image.mean() / 10) for image in obs["images"]] == list(range(20))
    assert info["num_images"] == 20
    assert "image_clue_19: frame 19 of video_clue_0" in obs["text"]
    assert env.first_observation.labels == tuple(f"image_clue_{k}" for k in range(20))
    assert len(make(video_task(), media_in_prompt=True, prompt_frames=99).reset()[0]["images"]) == 20


def test_a_tasks_own_setting_wins_over_the_environments(make: Any) -> None:
    env = make(image_task(media_in_prompt=False), media_in_prompt=True)
    assert env.reset()[0]["images"] == ()


def test_neither_observation_nor_info_nor_messages_hold_the_reference_answer(make: Any) -> None:
    task = Task("t", "What is it?", "zebra-7261", images=(png(RED),), metadata={"hint": "zebra-7261"})
    env = make(task)
    seen = [*env.reset(), *env.step(code("print(sorted(globals()))")), env.messages, env.step(answer("horse"))[4]]
    assert "zebra-7261" not in repr(seen)


def test_a_video_from_a_file_is_played(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "a clip with spaces ü.mp4"
    data = clip().data
    assert data is not None
    path.write_bytes(data)
    env = make(Task("v", "How long?", "2", videos=(VideoSource(path=path),)))
    assert "20 frames" in env.reset()[0]["text"]
