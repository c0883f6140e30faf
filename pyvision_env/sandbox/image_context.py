"""What goes into a build of the sandbox image: the recipe, the worker program and the host's way to a package index."""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pyvision_env.errors import SandboxImageError

WORKER_DIR = Path(__file__).parent / "worker"
RECIPE_FILES = ("Dockerfile", "requirements.txt")

_PIP_OPTIONS = {
    "PIP_INDEX_URL": "index-url",
    "PIP_EXTRA_INDEX_URL": "extra-index-url",
    "PIP_TRUSTED_HOST": "trusted-host",
}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_CA_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_LOCAL_CAS = Path("/usr/local/share/ca-certificates")


def recipe_dir() -> Path:
    """The folder with the Dockerfile: inside an installed wheel, or at the root of a checkout.

    Raises:
        SandboxImageError: Neither is there.
    """
    places = (Path(__file__).parent / "image_recipe", Path(__file__).parents[2] / "sandbox_image")
    for place in places:
        if all((place / name).is_file() for name in RECIPE_FILES):
            return place
    raise SandboxImageError(
        f"The recipe of the sandbox image ({' and '.join(RECIPE_FILES)}) is neither in {places[0]} nor in {places[1]}. "
        "Reinstall pyvision-rl."
    )


def worker_files(root: Path = WORKER_DIR) -> list[Path]:
    """Every file of the worker program below ``root``, sorted by its path; no byte code and no hidden files."""
    found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    kept = (path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))
    return sorted(kept, key=lambda path: path.relative_to(root).as_posix())


def digest(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 (hex) over the names relative to ``root`` and the bytes of ``files``, in the order given."""
    total = hashlib.sha256()
    for path in files:
        # The lengths keep one file's end from passing for the next one's name.
        for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()):
            total.update(len(part).to_bytes(8, "big"))
            total.update(part)
    return total.hexdigest()


def write_context(target: Path, *, environ: Mapping[str, str] = os.environ) -> Path:
    """Fill ``target`` with the build context, laid out as the repository is, with modes that any user can read.

    The host's certificate bundle goes along when the host has one of its own; only the first stage of the build reads
    it, so it is not in the image. Returns the folder of the worker inside ``target``.
    """
    recipe = recipe_dir()
    files = {f"sandbox_image/{name}": recipe / name for name in RECIPE_FILES}
    files |= {f"pyvision_env/sandbox/worker/{path.relative_to(WORKER_DIR)}": path for path in worker_files()}
    if bundle := ca_bundle(environ):
        files["sandbox_image/build-ca.crt"] = bundle
    for name, source in files.items():
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
        destination.chmod(0o644)
    for folder in (path for path in target.rglob("*") if path.is_dir()):
        folder.chmod(0o755)
    return target / "pyvision_env" / "sandbox" / "worker"


def build_arguments(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Build arguments that let pip in the build reach what pip on this host reaches: index addresses and proxies.

    Environment variables win over pip's configuration files. Folders of this host (``file:`` indexes) are left out:
    the build cannot see them.
    """
    arguments = {name: environ[name] for name in _PROXIES if environ.get(name)}
    configured = _pip_configuration(environ)
    for variable, option in _PIP_OPTIONS.items():
        words = (environ.get(variable) or configured.get(option, "")).split()
        reachable = [word for word in words if not word.startswith(("file:", "/", "."))]
        if reachable:
            arguments[variable] = " ".join(reachable)
    return arguments


def names_loopback(arguments: Mapping[str, str]) -> bool:
    """Whether an index or proxy among build arguments is on this very host, which a bridged build cannot reach."""
    words = (word for name, value in arguments.items() if name.lower() != "no_proxy" for word in value.split())
    return any((urlsplit(word).hostname or "") in ("localhost", "127.0.0.1", "::1") for word in words)


def ca_bundle(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The host's own certificate bundle: the one its environment or pip names, or the system's with added authorities.

    None where the host has nothing beyond the usual authorities, which pip carries itself.
    """
    named = [environ.get(variable) for variable in _CA_VARIABLES] + [_pip_configuration(environ).get("cert")]
    for name in named:
        if name and Path(name).is_file():
            return Path(name)
    if _SYSTEM_BUNDLE.is_file() and _LOCAL_CAS.is_dir() and any(_LOCAL_CAS.rglob("*.crt")):
        return _SYSTEM_BUNDLE
    return None


def _pip_configuration(environ: Mapping[str, str]) -> dict[str, str]:
    """The ``global`` and ``install`` sections of pip's configuration files, later files and sections winning."""
    home = Path(environ.get("HOME") or Path.home())
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    chosen = environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return {}
    if chosen:
        files.append(Path(chosen))
    parser = configparser.RawConfigParser()
    try:
        parser.read(files, encoding="utf-8")
    except configparser.Error as error:
        raise SandboxImageError(f"pip's configuration cannot be read, so its index is not known: {error}") from error
    merged: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            merged.update({option.replace("_", "-"): value for option, value in parser.items(section)})
    return merged
