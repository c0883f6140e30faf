import colorsys

import av
import numpy as np
import pytest
from scipy import ndimage
from skimage import filters, measure, registration, segmentation

from pyvision_env.grading import grade
from pyvision_env.media import load_image
from pyvision_env.tasks import demo_image_tasks, demo_video_tasks
from pyvision_env.tasks.photos import shipped_file


def images(name):
    return [load_image(source) for source in demo_image_tasks().by_id(f"demo-image-{name}").images]


def clips(name):
    decoded = []
    for source in demo_video_tasks().by_id(f"demo-video-{name}").videos:
        with av.open(str(source.path)) as container:
            decoded.append(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    return decoded


def answer(name, tasks):
    task = tasks.by_id(name)
    return task.options["ABCD".index(task.answer)] if task.options else task.answer


def image_answer(name):
    return answer(f"demo-image-{name}", demo_image_tasks())


def video_answer(name):
    return answer(f"demo-video-{name}", demo_video_tasks())


def hues(pixels):
    """Hues in degrees of the coloured pixels."""
    scaled = pixels.reshape(-1, 3)[::7] / 255
    coloured = scaled[np.ptp(scaled, axis=1) > 0.2]
    return np.array([360 * colorsys.rgb_to_hsv(*pixel)[0] for pixel in coloured])


def shot_starts(frames):
    step = np.abs(np.diff(frames[:, ::4, ::4].astype(int), axis=0)).mean((1, 2, 3))
    return [0, *(np.flatnonzero(step > 40) + 1).tolist()]


def test_every_demo_task_names_files_that_exist_and_a_valid_option():
    for tasks, least in ((demo_image_tasks(), 4), (demo_video_tasks(), 3)):
        assert len(tasks) >= least
        assert {task.grader for task in tasks} == {"choice", "numeric"}
        for task in tasks:
            assert all(source.path.is_file() for source in (*task.images, *task.videos))
            assert not task.options or "ABCD".index(task.answer) < len(task.options)
        assert max(len(task.images) + len(task.videos) for task in tasks) == 2


def test_coins_are_as_many_as_segmentation_counts():
    grey = images("coins")[0][..., 0].astype(float)
    markers = np.where(grey > 150, 2, np.where(grey < 30, 1, 0))
    coins = segmentation.watershed(filters.sobel(grey), markers) == 2
    labels, _ = ndimage.label(ndimage.binary_opening(ndimage.binary_fill_holes(coins), iterations=2))
    assert str((np.bincount(labels.ravel())[1:] > 300).sum()) == image_answer("coins")


def test_page_lines_are_as_many_as_the_row_profile_shows():
    grey = images("page-lines")[0][..., 0].astype(float)
    ink = grey < filters.threshold_local(grey, 35) - 12
    # The left part of the page: further right the lines of the curved page overlap in height.
    rows = ndimage.gaussian_filter1d(ink[45:140, 5:60].sum(1).astype(float), 2) > 12
    assert str(ndimage.label(rows)[1]) == image_answer("page-lines")


def test_cell_is_as_wide_as_its_threshold_mask():
    grey = images("cell-width")[0][..., 0]
    regions = measure.regionprops(measure.label(grey > filters.threshold_otsu(grey)))
    cell = max(regions, key=lambda region: region.area)
    width = cell.bbox[3] - cell.bbox[1]
    assert min(("60", "120", "180", "240"), key=lambda option: abs(int(option) - width)) == image_answer("cell-width")


def test_mission_patch_is_violet_blue():
    patch = hues(images("mission-patch")[0][345:420, 135:210])
    suit = hues(images("mission-patch")[0][300:340, 60:120])
    assert np.median(suit) < 30
    assert 240 <= np.median(patch[patch > 40]) <= 280  # below 40 is the suit around the patch
    assert image_answer("mission-patch") == "violet-blue"


def test_flower_is_orange():
    petals = hues(images("flower")[0][150:310, 200:420])
    assert 10 <= np.median(petals) <= 40
    assert image_answer("flower") == "orange"


def test_optic_disc_lies_left_of_the_fovea():
    retina = images("retina")[0].astype(float)
    green = ndimage.gaussian_filter(retina[..., 1], 25)
    inside = ndimage.binary_erosion(retina[..., 0] > 30, iterations=120)
    disc = np.unravel_index(green.argmax(), green.shape)
    fovea = np.unravel_index(np.where(inside, green, np.inf).argmin(), green.shape)
    down, right = disc[0] - fovea[0], disc[1] - fovea[1]
    assert right < 0 and abs(right) > 3 * abs(down)
    assert image_answer("retina") == "to the left"


def test_the_motorcycle_appears_further_left_in_the_photo_of_the_right_camera():
    first, second = (photo[..., 1].astype(float) for photo in images("motorcycle-pair"))
    shift = registration.phase_cross_correlation(first, second)[0]  # moves the second onto the first
    assert shift[1] < -10
    assert image_answer("motorcycle-pair").startswith("the first")


def test_bikes_has_as_many_shots_as_cuts_plus_one():
    starts = shot_starts(clips("bikes-shots")[0])
    assert starts == [0, 30, 76, 137, 187, 242]
    assert str(len(starts)) == video_answer("bikes-shots")


def test_the_first_cut_of_bikes_is_at_the_stated_second():
    (source,) = demo_video_tasks().by_id("demo-video-bikes-first-cut").videos
    with av.open(str(source.path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times[shot_starts(clips("bikes-shots")[0])[1]] == pytest.approx(float(video_answer("bikes-first-cut")))


def test_reference_answers_earn_full_marks():
    for task in (*demo_image_tasks(), *demo_video_tasks()):
        assert grade(task, task.answer).correct
        assert not grade(task, "0" if task.grader == "numeric" else "E").correct


def test_the_car_of_the_first_shot_is_red():
    frames = clips("bikes-car")[0]
    corner = (slice(0, 60), slice(520, 640))
    arrived = np.abs(frames[29][corner].astype(int) - frames[12][corner]).sum(-1) > 120
    colour = hues(frames[29][corner][arrived])
    red = (colour < 20) | (colour > 340)
    assert arrived.sum() > 1000 and red.mean() > 0.8
    assert video_answer("bikes-car") == "red"


def test_the_roof_sign_has_the_letters_of_taxi():
    sign = clips("bikes-sign")[0][72].astype(int)
    red = sign[..., 0] - sign[..., 1:].max(-1) > 20
    columns = red.sum(0) > 2
    labels, count = ndimage.label(columns)
    widths = np.bincount(labels)[1 : count + 1].tolist()
    words = demo_video_tasks().by_id("demo-video-bikes-sign").options
    # Four letters, the last of them slender.
    assert widths[-1] < 0.7 * min(widths[:-1])
    assert [word for word in words if len(word) == len(widths)] == [video_answer("bikes-sign")] == ["TAXI"]


def test_the_rabbit_takes_up_more_height_at_the_end():
    frames = clips("bunny-height")[0]

    def height(frame):
        # The largest grey patch in the columns of the rabbit: around it is saturated grass and the dark burrow.
        part = frame[:, 220:620].astype(float)
        saturation = np.ptp(part, axis=-1) / part.max(-1).clip(1)
        fur = ndimage.binary_opening((saturation < 0.25) & (part.mean(-1) > 60), iterations=4)
        body = max(measure.regionprops(measure.label(fur)), key=lambda region: region.area)
        return body.bbox[2] - body.bbox[0]

    assert height(frames[-1]) > 2 * height(frames[0])
    assert video_answer("bunny-height") == "it has become larger"


def test_the_compressed_clip_has_less_fine_detail():
    first, second = (
        np.abs(ndimage.laplace(frames[::10, ..., 1].astype(float))).mean() for frames in clips("carphone-pair")
    )
    assert second < 0.8 * first
    assert video_answer("carphone-pair").startswith("the second")


def test_a_missing_photo_names_the_extra_to_install():
    with pytest.raises(ValueError, match=r'expected nothing\.png of scikit-image.*pip install "pyvision-rl\[demo\]"'):
        shipped_file("skimage", "nothing.png")
