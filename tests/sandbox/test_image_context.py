"""What goes into a build of the sandbox image, decided without an engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyvision_env.errors import SandboxImageError
from pyvision_env.sandbox import image_base
from pyvision_env.sandbox.image import worker_digest
from pyvision_env.sandbox.image_context import (
    build_arguments,
    ca_bundle,
    digest,
    names_loopback,
    recipe_dir,
    worker_files,
    write_context,
)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose pip has no configuration but what a test writes."""
    config = tmp_path / "pip.conf"
    config.touch()
    return {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(config)}


def make_worker(root: Path, **files: str) -> str:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)
    return digest(root, worker_files(root))


def test_digest_follows_names_and_bytes(tmp_path: Path) -> None:
    first = make_worker(tmp_path / "a", main__py="x = 1", data__bpf="ab")
    assert first == make_worker(tmp_path / "b", data__bpf="ab", main__py="x = 1")
    assert first != make_worker(tmp_path / "c", main__py="x = 2", data__bpf="ab")
    assert first != make_worker(tmp_path / "d", other__py="x = 1", data__bpf="ab")
    assert make_worker(tmp_path / "e", a__py="1", b__py="23") != make_worker(tmp_path / "f", a__py="12", b__py="3")


def test_digest_ignores_byte_code(tmp_path: Path) -> None:
    before = make_worker(tmp_path, main__py="x = 1")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"code")
    assert digest(tmp_path, worker_files(tmp_path)) == before


def test_worker_holds_its_program_and_filters() -> None:
    names = {path.name for path in worker_files()}
    assert {"main.py", "x86_64-base.bpf", "aarch64-strict.bpf"} <= names
    assert len(worker_digest()) == 64


def test_context_is_laid_out_as_the_repository_and_readable_by_anyone(tmp_path: Path, home: dict[str, str]) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("certificate")
    authority.chmod(0o600)
    target = tmp_path / "context"
    target.mkdir()
    worker = write_context(target, environ=home | {"SSL_CERT_FILE": str(authority)})
    assert digest(worker, worker_files(worker)) == worker_digest()
    files = {str(path.relative_to(target)): path for path in target.rglob("*") if path.is_file()}
    assert {"sandbox_image/Dockerfile", "pyvision_env/sandbox/worker/main.py"} <= set(files)
    assert files["sandbox_image/build-ca.crt"].read_text() == "certificate"
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in target.rglob("*") if path.is_dir()} == {0o755}


def test_certificate_bundle_that_pip_is_configured_with_goes_along(home: dict[str, str], tmp_path: Path) -> None:
    bundle = tmp_path / "corporate.pem"
    bundle.touch()
    Path(home["PIP_CONFIG_FILE"]).write_text(f"[global]\ncert = {bundle}\n")
    assert ca_bundle(home) == bundle


def test_index_of_the_environment_wins_over_the_configuration(home: dict[str, str]) -> None:
    Path(home["PIP_CONFIG_FILE"]).write_text(
        "[global]\nindex-url = https://one.example/simple\nextra_index_url = https://two.example https://three.example\n"
    )
    assert build_arguments(home) == {
        "PIP_INDEX_URL": "https://one.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://two.example https://three.example",
    }
    chosen = build_arguments(home | {"PIP_INDEX_URL": "https://mine.example"})
    assert chosen["PIP_INDEX_URL"] == "https://mine.example"


def test_folders_of_this_host_are_not_passed_as_indexes(home: dict[str, str]) -> None:
    environ = home | {"PIP_EXTRA_INDEX_URL": "file:///srv/wheels https://two.example", "PIP_INDEX_URL": "/srv/simple"}
    assert build_arguments(environ) == {"PIP_EXTRA_INDEX_URL": "https://two.example"}


def test_proxies_are_passed_and_one_on_this_host_is_noticed(home: dict[str, str]) -> None:
    arguments = build_arguments(home | {"https_proxy": "http://127.0.0.1:3128", "no_proxy": "localhost"})
    assert arguments == {"https_proxy": "http://127.0.0.1:3128", "no_proxy": "localhost"}
    assert names_loopback(arguments)
    assert not names_loopback({"PIP_INDEX_URL": "https://one.example", "no_proxy": "http://localhost"})


def test_unreadable_pip_configuration_is_told(home: dict[str, str]) -> None:
    Path(home["PIP_CONFIG_FILE"]).write_text("index-url = nowhere\n")
    with pytest.raises(SandboxImageError, match="pip's configuration cannot be read"):
        build_arguments(home)


def test_requirements_are_pinned_exactly() -> None:
    lines = [line for line in (recipe_dir() / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all(line.count("==") == 1 for line in lines)


def test_missing_mmdebstrap_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxImageError, match="apt-get install mmdebstrap"):
        image_base.make_base_tar(tmp_path / "base.tar", "amd64", lambda _line: None)


def test_failing_mmdebstrap_tells_its_last_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'E: no space' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(SandboxImageError, match=r"(?s)status 3.*no space"):
        image_base.make_base_tar(tmp_path / "cache" / "base.tar", "amd64", lambda _line: None)
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_follows_xdg(tmp_path: Path) -> None:
    assert image_base.cache_dir({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "pyvision-rl"
