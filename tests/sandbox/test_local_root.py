"""The private root of the local sandbox: what an installed package may not show."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np

import pyvision_env

PACKAGE = Path(pyvision_env.__file__).parent
PROGRAM = """
import pyvision_env, sys
from pyvision_env.sandbox import make_sandbox
with make_sandbox('local', containers=1, episodes_per_container=2) as sandbox, sandbox.open() as episode:
    print(pyvision_env.__file__.startswith(sys.prefix), sandbox.isolation.guarantees['private_root'])
    print(episode.run(CODE).text)
"""
CODE = """
import os, sys
for here, _, names in os.walk(sys.prefix):
    if names and 'pyvision_env' in here and 'worker' not in here:
        print('SEEN', here, names)
try:
    import pyvision_env.tasks.demo
except ImportError as error:
    print(error)
import _pyvision_worker
print(type(image_clue_0) if 'image_clue_0' in globals() else 'no image')
"""


def install(site: Path) -> None:
    """This package as a wheel would lie there, beside what the worker imports."""
    shutil.copytree(PACKAGE, site / "pyvision_env", ignore=shutil.ignore_patterns("__pycache__"))
    for entry in Path(np.__file__).parent.parent.iterdir():
        if "pyvision" in entry.name.lower() or (site / entry.name).exists():
            continue
        if entry.is_dir():
            shutil.copytree(entry, site / entry.name, copy_function=link)
        else:
            link(str(entry), str(site / entry.name))


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def test_an_installed_package_does_not_show_the_answers_of_its_tasks(tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    site = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    install(site)
    command = [str(home / "bin" / "python"), "-c", PROGRAM.replace("CODE", repr(CODE))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True True", "No module named 'pyvision_env.tasks'", "no image", ""]
