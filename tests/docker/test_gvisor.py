"""gVisor's runsc as the runtime of the containers, for real: strict mode works, shared mode says why it does not."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import av
import docker
import numpy as np
import pytest
from PIL import Image

from pyvision_env.config import Limits
from pyvision_env.doctor import check_engine, check_sandbox
from pyvision_env.errors import SandboxUnavailableError
from pyvision_env.sandbox import Sandbox, make_sandbox

pytestmark = pytest.mark.docker
SHORT = Limits(code_timeout_s=2, kill_grace_s=1)


@pytest.fixture(scope="module")
def strict(runsc: str, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    request.getfixturevalue("sandbox_image")
    with make_sandbox(
        "docker-strict", limits=SHORT, runtime=runsc, containers=1, episodes_per_container=2, warm=0,
        memory_mb=512, open_timeout_s=120,
    ) as sandbox:  # fmt: skip
        yield sandbox


@pytest.fixture(scope="module")
def clip() -> bytes:
    """Ten frames, each of one grey of its own."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(20, 220, 20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def test_an_episode_on_gvisor_runs_code_with_its_images_and_videos(
    strict: Sandbox, clip: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip)
    picture = Image.new("RGB", (120, 90), (10, 20, 30))
    with strict.open(images=[picture], videos=[path, clip]) as episode:
        assert episode.run("print(image_clue_0.size, image_clue_0.getpixel((5, 5)))").text == "(120, 90) (10, 20, 30)\n"
        assert (episode.run("image_clue_0.crop((0, 0, 64, 64)).show()").images[0] == (10, 20, 30)).all()
        assert episode.run("plt.plot([1, 2]); plt.show()", timeout=30).images[0].shape == (480, 640, 3)
        for video in (0, 1):
            fetched = episode.frames(video=video, indices=[0, 5])
            assert fetched.error is None
            assert [abs(int(image.mean()) - shade) < 6 for image, shade in zip(fetched.images, (20, 120), strict=True)]
        assert episode.run("print(len(video_clue_0), open('new', 'w').write('n'))").text == "10 1\n"


def test_the_report_tells_the_rung_and_what_is_given(strict: Sandbox) -> None:
    report = strict.isolation
    assert report.rung in ("userns", "seccomp")
    assert report.guarantees["other_episodes"]
    assert report.guarantees["memory"]
    assert any("the kernel offers no Landlock" in note for note in report.notes)


ATTACKS = {
    "import socket; socket.socket()": "PermissionError",
    "open('/etc/shadow').read()": "PermissionError",
    "open('/root/x', 'w')": ("PermissionError", "OSError", "FileNotFoundError"),
    "hoard = []\nwhile True:\n    hoard.append(bytearray(50_000_000))": "MemoryError",
    "hoard = None\nwhile True: pass": "Timeout: the code ran longer than 2 s and was interrupted",
    # Its own namespace's first process is itself.
    "import os; os.kill(1, 9)\nraise SystemError('kept')": ("SystemError: kept", "RuntimeLost", "PermissionError"),
    "sum(range(10**13))": "Timeout: the code ran longer than 2 s and could not be interrupted",
}


def test_an_attack_on_gvisor_is_one_clear_line_and_a_fresh_runtime_goes_on(strict: Sandbox) -> None:
    with strict.open() as episode:
        for code, error in ATTACKS.items():
            result = episode.run(code)
            assert result.error is not None, code
            assert result.error.startswith(error), (code, result.error)
        assert episode.run("print('goes on')").text == "goes on\n"


def test_a_container_on_gvisor_ends_with_its_episode(strict: Sandbox, docker_client: docker.DockerClient) -> None:
    with strict.open() as episode:
        episode.run("1")
        names = {link.name.removeprefix("container ") for link in strict._workers._used}
        assert names <= {container.name for container in docker_client.containers.list()}
    deadline = time.monotonic() + 60
    while names & {container.name for container in docker_client.containers.list(all=True, ignore_removed=True)}:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_shared_containers_on_gvisor_are_refused_and_the_error_says_why(runsc: str, sandbox_image: object) -> None:
    del sandbox_image
    with make_sandbox("docker", runtime=runsc, containers=1, episodes_per_container=2) as sandbox:
        with pytest.raises(SandboxUnavailableError) as caught:
            sandbox.open()
        assert "the kernel offers no Landlock" in str(caught.value)


def test_the_doctor_names_the_runtime_and_tries_it(runsc: str, sandbox_image: object) -> None:
    del sandbox_image
    (runtimes,) = [check for check in check_engine() if check.name == "runtimes"]
    assert "gVisor for docker-strict with SandboxConfig(runtime='runsc')" in runtimes.detail
    tried = check_sandbox("docker-strict", runsc)
    assert tried.works
    assert tried.check.name == "sandbox docker-strict on runsc"
