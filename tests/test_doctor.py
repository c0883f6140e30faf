"""The doctor's checks on this very machine, and what they say where something is missing."""

from __future__ import annotations

import json

import pytest
import requests
from typer.testing import CliRunner

from pyvision_env import doctor
from pyvision_env.cli.app import app
from pyvision_env.doctor import Check, Report, check_engine, check_machine, check_sandbox, examine
from pyvision_env.sandbox import containers

NAMES = [
    *("python", "packages"),
    *(f"extra {extra}" for extra in ("local", "demo", "datasets", "ray", "train", "verl")),
    *("user namespaces", "Landlock", "seccomp", "cgroups", "memory", "disk", "fonts", "chromium"),
]


def test_every_part_of_the_machine_is_looked_at():
    checks = list(check_machine())
    assert [check.name for check in checks] == NAMES
    by_name = {check.name: check for check in checks}
    assert by_name["python"].status == by_name["packages"].status == by_name["fonts"].status == "ok"
    assert all(check.detail for check in checks)


def test_the_local_sandbox_is_really_opened():
    tried = check_sandbox("local")
    assert tried.works and tried.check.detail.startswith("works, confinement ")


def test_an_absent_extra_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(doctor, "_EXTRAS", {"dream": ("pillow", "no-such-distribution")})
    (check,) = [check for check in check_machine() if check.name == "extra dream"]
    assert check == Check(
        "extra dream",
        "warn",
        "not installed: no-such-distribution (optional)",
        'pip install "pyvision-rl[dream]"',
    )


def test_without_an_engine_the_docker_sandboxes_are_not_tried(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    (engine,) = check_engine()
    assert (engine.name, engine.status) == ("engine", "warn") and "docker" in engine.fix
    assert "no Docker engine answers" in engine.detail and "pyvision-env doctor" not in engine.detail
    report = examine(("docker", "docker-strict"))
    assert not report.ok and report.working == ()
    assert [check.detail for check in report.checks[-2:]] == ["not tried: engine or image is missing"] * 2


def test_an_engine_that_answers_only_at_first_is_told(monkeypatch):
    class Silent:
        def info(self):
            raise requests.ReadTimeout("read timed out")

        def close(self):
            pass

    monkeypatch.setattr(containers, "connect", lambda timeout: Silent())
    (engine,) = check_engine()
    assert (engine.name, engine.status) == ("engine", "warn") and "read timed out" in engine.detail


def test_a_missing_image_names_the_command_that_builds_it(docker_client):
    image = next(check for check in check_engine("no-such-image") if check.name == "image")
    assert (image.status, image.fix) == ("missing", "pyvision-env sandbox build")


@pytest.mark.docker
def test_the_engine_its_runtimes_and_the_image_are_told(sandbox_image):
    engine, runtimes, image = check_engine()
    assert engine.status == runtimes.status == image.status == "ok"
    assert "storage" in engine.detail and "cgroup v" in engine.detail and "runc" in runtimes.detail
    assert check_sandbox("docker").works


def test_each_check_is_told_as_it_comes():
    told = []
    report = examine((), on_check=told.append)
    assert tuple(told) == report.checks and not report.ok


def test_a_report_is_good_when_one_sandbox_works():
    assert Report((), ("local",)).ok
    assert not Report((), ()).ok


def test_the_command_tells_what_mends_and_exits_with_0_where_a_sandbox_works():
    result = CliRunner().invoke(app, ["doctor", "--sandbox", "local"])
    assert result.exit_code == 0, result.output
    assert "Ready: code can run in local." in result.stdout
    assert all(name in result.stdout for name in NAMES)


def test_its_json_is_all_of_standard_output(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    result = CliRunner().invoke(app, ["doctor", "--json"])
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"], report["working"]) == (0, True, ["local"])
    statuses = {check["name"]: check["status"] for check in report["checks"]}
    assert statuses["engine"] == "warn" and statuses["sandbox docker"] == "warn"


def test_an_unknown_kind_is_a_users_error():
    result = CliRunner().invoke(app, ["doctor", "--sandbox", "podman"])
    assert result.exit_code == 2 and "docker-strict" in result.stderr
