"""Pillow images over shared memory, without a copy.

Pillow keeps an RGB pixel in four bytes and takes such memory through the Arrow C data interface. The mapping is
private: code that writes gets its own pages, and nobody else ever sees them.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

import numpy as np
from PIL import Image

BYTES_PER_PIXEL = 4


class _Schema(ctypes.Structure):
    _fields_ = (
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_char_p),
        ("flags", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


class _Array(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


def _release(exported: Any) -> None:
    exported.contents.release = None


_release_schema = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Schema))(_release)
_release_array = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Array))(_release)

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)

# What the images point to must outlive them, and they may live as long as the process.
_kept: list[Any] = []


class _Pixels:
    """An Arrow array of one uint32 a pixel."""

    def __init__(self, memory: mmap.mmap, count: int) -> None:
        address = np.frombuffer(memory, np.uint8).ctypes.data
        buffers = (ctypes.c_void_p * 2)(None, address)
        release = ctypes.cast(_release_schema, ctypes.c_void_p).value
        self._schema = _Schema(format=b"I", release=release)
        self._array = _Array(
            length=count,
            n_buffers=2,
            buffers=ctypes.cast(buffers, ctypes.POINTER(ctypes.c_void_p)),
            release=ctypes.cast(_release_array, ctypes.c_void_p).value,
        )
        _kept.append((memory, buffers, self._schema, self._array))

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[Any, Any]:
        del requested_schema
        return (
            _new_capsule(ctypes.addressof(self._schema), b"arrow_schema", None),
            _new_capsule(ctypes.addressof(self._array), b"arrow_array", None),
        )


def map_image(fd: int, width: int, height: int) -> Image.Image:
    """An RGB image over a memfd of ``width * height * 4`` bytes; the descriptor is closed."""
    size = width * height * BYTES_PER_PIXEL
    try:
        if os.fstat(fd).st_size < size:
            raise ValueError(f"a picture of {width}x{height} needs {size} bytes, its memory has fewer")
        memory = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(fd)
    image = Image.fromarrow(_Pixels(memory, width * height), "RGB", (width, height))
    image.readonly = 1
    return image
