"""The containers themselves: what the engine was told, what lies on the host's disk, what a killed start leaves."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
import requests
from docker.models.containers import ContainerCollection

from pyvision_env.config import SandboxConfig
from pyvision_env.errors import SandboxStartError
from pyvision_env.sandbox import Sandbox, containers, leftovers, make_sandbox
from pyvision_env.sandbox.containers import DockerLauncher
from pyvision_env.sandbox.image import ImageInfo

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("kind", ["docker", "docker-strict"])
def test_the_engine_was_told_every_restriction(
    kind: str, sandbox_of: Callable[[str], Sandbox], docker_client: docker.DockerClient
) -> None:
    sandbox = sandbox_of(kind)
    with sandbox.open():
        name = sandbox._links[0].name.removeprefix("container ")
        attributes = docker_client.containers.get(name).attrs
    host, config = attributes["HostConfig"], attributes["Config"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert any(option.startswith("seccomp={") for option in host["SecurityOpt"])
    assert host["IpcMode"] == "none"
    assert host["PidMode"] == ""
    assert host["AutoRemove"] is True
    assert host["Memory"] == host["MemorySwap"] > 0
    assert host["PidsLimit"] > 0
    assert config["User"] == "10001:10001"
    assert not config.get("ExposedPorts")
    assert not host["Devices"]
    assert {mount["Destination"]: mount["RW"] for mount in attributes["Mounts"] if mount["Type"] == "bind"} == {
        "/run/pyvision": False
    }
    assert all("nosuid" in flags and "noexec" in flags for flags in host["Tmpfs"].values())


@pytest.mark.usefixtures("sandbox_image")
def test_first_launches_at_once_share_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    clients: list[docker.DockerClient] = []
    original = containers.connect

    def connect() -> docker.DockerClient:
        time.sleep(0.5)  # so long that the other one comes meanwhile
        clients.append(original())
        return clients[-1]

    monkeypatch.setattr(containers, "connect", connect)
    launcher = DockerLauncher(SandboxConfig(kind="docker", containers=2, episodes_per_container=1), strict=False)
    with ThreadPoolExecutor(2) as threads:
        for link in threads.map(launcher.launch, [lambda: None] * 2):
            link.close(wait=True)
    launcher.close()
    assert len(clients) == 1


@pytest.mark.usefixtures("sandbox_image")
def test_a_container_that_was_made_too_late_is_removed(
    monkeypatch: pytest.MonkeyPatch, docker_client: docker.DockerClient
) -> None:
    made: list[str] = []
    create = ContainerCollection.create

    def late(self: ContainerCollection, *args: Any, **options: Any) -> Any:
        made.append(create(self, *args, **options).name)
        raise requests.ReadTimeout("read timed out")

    monkeypatch.setattr(ContainerCollection, "create", late)
    launcher = DockerLauncher(SandboxConfig(kind="docker", containers=1), strict=False)
    with pytest.raises(SandboxStartError, match="read timed out"):
        launcher.launch(lambda: None)
    launcher.close()
    (name,) = made
    with pytest.raises(docker.errors.NotFound):
        docker_client.containers.get(name)


@pytest.mark.usefixtures("sandbox_image")
def test_nothing_to_connect_to_lies_on_the_disk_even_below_a_long_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("d" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with make_sandbox("docker", containers=1, episodes_per_container=1) as sandbox, sandbox.open() as episode:
        assert list(long.iterdir()) == []
        assert episode.run("print('up')").text == "up\n"


def test_what_a_killed_start_left_is_swept_away_and_nothing_else(
    sandbox_image: ImageInfo, docker_client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(leftovers, "LABEL", "org.pyvision-rl.sweep-test")
    (tmp_path / "other").mkdir()
    dead, dead_lock = leftovers.new_directory()
    living, living_lock = leftovers.new_directory()
    elsewhere = {leftovers.LABEL: "1", "org.pyvision-rl.start": "another-boot/mnt:/tmp/gone"}
    made = {
        name: docker_client.containers.create(sandbox_image.id, "{}", labels=labels)
        for name, labels in {
            "dead": leftovers.labels(dead), "living": leftovers.labels(living), "elsewhere": elsewhere,
        }.items()
    }  # fmt: skip

    def left() -> set[str]:
        known = {each.id for each in docker_client.containers.list(all=True, ignore_removed=True)}
        return {name for name, container in made.items() if container.id in known}

    try:
        os.close(dead_lock)  # as the kernel does when a process is killed
        leftovers.sweep(docker_client)
        assert left() == {"living", "elsewhere"}
        assert sorted(tmp_path.iterdir()) == sorted([living, tmp_path / "other"])
        monkeypatch.setattr(leftovers, "_STALE_S", -60.0)
        leftovers.sweep(docker_client)
        assert left() == {"living"}
    finally:
        os.close(living_lock)
        for container in made.values():
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True)


def test_strict_containers_hold_one_slot_and_shared_ones_many() -> None:
    config = SandboxConfig(containers=2, episodes_per_container=8)
    strict, shared = DockerLauncher(config, strict=True), DockerLauncher(config, strict=False)
    assert (strict.slots, strict.workers, strict.single_use) == (1, 16, True)
    assert (shared.slots, shared.workers, shared.single_use) == (8, 2, False)
