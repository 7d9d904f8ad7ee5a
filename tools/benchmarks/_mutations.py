"""Images of all kinds and mutated images, for the suites fuzz and serve."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from clouds_tf.data import sample_data

SIZE = (48, 72)  # of the images
_PNG = b"\x89PNG\r\n\x1a\n"
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 60000, 0x7FFFFFFF, 0xFFFFFFFF)


def seeds():
    """Images of all kinds that a request may hold, and one that it may not, as bytes."""
    image = Image.fromarray(sample_data.render_images(1, SIZE)[0][0])
    kinds = [("JPEG", mode, {"progressive": p}) for mode in ("RGB", "L", "CMYK") for p in (0, 1)]
    kinds += [("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")]
    kinds += [("GIF", "RGB", {})]
    contents = []
    for file_format, mode, options in kinds:
        file = io.BytesIO()
        _convert(image, mode).save(file, file_format, **options)
        contents.append(file.getvalue())
    return contents


def _convert(image, mode):
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def mutate(contents, rng):
    """One of the contents, changed in one to four places."""
    content = bytearray(contents[rng.integers(len(contents))])
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(min(len(content), 10 ** rng.integers(1, 5)) + 1))
        length = int(rng.integers(1, 33))
        kind = rng.integers(8)
        if kind == 0:
            content[place : place + 1] = rng.bytes(1)
        elif kind == 1:
            content[place : place + length] = rng.bytes(length)
        elif kind == 2:
            content[place:place] = rng.bytes(length)
        elif kind == 3:
            del content[place : place + length]
        elif kind == 4:
            content[place:place] = content[place : place + length] * int(rng.integers(1, 100))
        elif kind == 5:
            del content[place:]
        elif kind == 6:  # sizes, lengths
            number, width = rng.choice(_NUMBERS), int(rng.choice([1, 2, 4]))
            content[place : place + width] = struct.pack(">Q", int(number))[-width:]
        else:
            other = contents[rng.integers(len(contents))]
            content[place : place + length] = other[place : place + 8 * length]
    if content.startswith(_PNG) and rng.integers(2):
        content = _with_checksums(bytes(content))
    return bytes(content)


def _with_checksums(png):
    """The PNG with right checksums, so that the decoder looks at what is in its chunks."""
    parts, place = [_PNG], len(_PNG)
    while place + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, place)
        chunk = png[place + 4 : place + 8 + length]
        parts.append(png[place : place + 4] + chunk + struct.pack(">I", zlib.crc32(chunk)))
        place += 12 + length
    return b"".join(parts)
