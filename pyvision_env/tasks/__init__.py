"""Tasks: questions about images and videos, from record files, synthetic generators and the photos of the demo."""

from __future__ import annotations

from pyvision_env.tasks.demo import demo_image_tasks, demo_video_tasks
from pyvision_env.tasks.loading import load_tasks
from pyvision_env.tasks.records import Problem
from pyvision_env.tasks.synthetic_search import SearchTasks, make_search_task
from pyvision_env.tasks.synthetic_video import VideoTasks, make_video_task
from pyvision_env.tasks.task_set import TaskSet

__all__ = [
    "Problem",
    "SearchTasks",
    "TaskSet",
    "VideoTasks",
    "demo_image_tasks",
    "demo_video_tasks",
    "load_tasks",
    "make_search_task",
    "make_video_task",
]
