"""Class masks of every depth and mode, written by Pillow, come back as the numbers that were written."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer.records.annotations import MaskCodes
from tf_pixpro.transfer.records.class_masks import class_mask, colour_table

NUMBERS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0]
ALPHA = NUMBERS.astype(np.uint16) + 999


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette_image():
    image = Image.fromarray(NUMBERS, "P")
    image.putpalette(PALETTE)
    return image


def deep_png(*channels):
    return tf.io.encode_png(np.stack(channels, -1).astype(np.uint16)).numpy()


MASKS = {
    "8-bit grey": lambda: stored(Image.fromarray(NUMBERS)),
    "16-bit grey": lambda: stored(Image.fromarray(NUMBERS.astype(np.uint16))),
    "32-bit TIFF": lambda: stored(Image.fromarray(NUMBERS.astype(np.int32)), "TIFF"),
    "palette": lambda: stored(palette_image()),
    "2-bit palette": lambda: stored(palette_image(), bits=2),
    "palette BMP": lambda: stored(palette_image(), "BMP"),
    "palette GIF": lambda: stored(palette_image(), "GIF"),
    "grey as colours": lambda: stored(Image.fromarray(np.stack([NUMBERS] * 3, -1))),
    "grey with alpha": lambda: stored(Image.fromarray(np.stack([NUMBERS, NUMBERS + 200], -1))),
    "16-bit colours": lambda: deep_png(NUMBERS, NUMBERS, NUMBERS),
    "16-bit grey with alpha": lambda: deep_png(NUMBERS, ALPHA),
    "16-bit colours with alpha": lambda: deep_png(NUMBERS, NUMBERS, NUMBERS, ALPHA),
    "WebP without loss": lambda: stored(Image.fromarray(np.stack([NUMBERS] * 3, -1)), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", MASKS)
def test_numbers_of_every_mode(kind):
    np.testing.assert_array_equal(class_mask(MASKS[kind](), MaskCodes(3), "a.png"), NUMBERS)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits(depth):
    """A PNG of 1, 2 or 4 bits, packed by hand; Pillow scales its grey to 0..255."""
    import struct
    import zlib

    values = [[1, 0, 1, 1], [0, 1, 0, 0]] if depth == 1 else [[3, 0, 1, 2], [0, 1, 2, 3]]
    rows = b""
    for row in values:
        bits = "".join(f"{value:0{depth}b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 4, 2, depth, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(class_mask(png, MaskCodes(4), "a.png"), values)


@pytest.mark.parametrize("value", [2000, 3, 254, 65280])
def test_values_beyond_the_classes_are_refused(value):
    mask = stored(Image.fromarray(np.full((2, 2), value, np.uint16)))
    with pytest.raises(Mistake, match=rf"Received {value} in some/a\.png.*0 to 2 and 255"):
        class_mask(mask, MaskCodes(3), "some/a.png")


def test_tables_and_no_class():
    mask = stored(Image.fromarray(np.array([[7, 8, 0, 255]], np.uint8)))
    codes = MaskCodes(2, ((7, 0), (8, 1), (0, 255)))
    np.testing.assert_array_equal(class_mask(mask, codes, "a.png"), [[0, 1, 255, 255]])


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n0 0 0 void\n128 0 0 car\n0 128 0 tree\n",
        "name,r,g,b\nvoid,0,0,0\ncar,128,0,0\ntree,0,128,0\n",
        "\ufeff# label:color_rgb:parts:actions\nvoid:0,0,0::\ncar:128,0,0::\ntree:0,128,0::\n",
    ],
)
@pytest.mark.parametrize("image", [palette_image, lambda: palette_image().convert("RGB")])
def test_colours(tmp_path, text, image):
    path = tmp_path / "colours.txt"
    path.write_text(text, encoding="utf-8")
    names, colours = colour_table(str(path))
    assert names == ["car", "tree"]
    mask = class_mask(stored(image()), MaskCodes(2, colours=colours), "a.png")
    np.testing.assert_array_equal(mask, np.array([255, 0, 1])[NUMBERS])


def test_colours_without_a_table_or_class():
    coloured = stored(palette_image().convert("RGB"))
    with pytest.raises(Mistake, match="--colours=FILE"):
        class_mask(coloured, MaskCodes(3), "a.png")
    with pytest.raises(Mistake, match=r"\(0, 128, 0\)"):
        class_mask(coloured, MaskCodes(2, colours=(((0, 0, 0), 0), ((128, 0, 0), 1))), "a.png")


@pytest.mark.parametrize("text", ["", "car\n", "1 2 3\n", "1 2 300 car\n", "1 2 3 car\n1 2 3 tree\n"])
def test_tables_that_are_none(tmp_path, text):
    (tmp_path / "colours.txt").write_text(text)
    with pytest.raises(Mistake, match="colour table"):
        colour_table(str(tmp_path / "colours.txt"))


LOSSY = {"JPEG": ("JPEG", {}), "TIFF packed as JPEG": ("TIFF", {"compression": "jpeg"}), "lossy WebP": ("WEBP", {})}


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.parametrize("values", [(0, 1), (0, 255)])
def test_masks_with_loss_are_refused(values, kind):
    mask = np.kron(np.array([values, values[::-1]], np.uint8), np.ones((5, 5), np.uint8))
    format, options = LOSSY[kind]
    with pytest.raises(Mistake, match=rf"without loss\. Received a\.b, a {kind}"):
        class_mask(stored(Image.fromarray(mask), format, **options), MaskCodes(2), "a.b")


def test_a_mask_of_several_pages_is_refused():
    pages = [Image.fromarray(NUMBERS), Image.fromarray(NUMBERS[::-1])]
    with pytest.raises(Mistake, match=r"must be one image\. Received a\.tif with 2 pages"):
        class_mask(stored(pages[0], "TIFF", save_all=True, append_images=pages[1:]), MaskCodes(3), "a.tif")


@pytest.mark.parametrize("scale", [1, 257])
def test_colours_of_16_bits(scale):
    """Stored as they are, or spread over the range of 16 bits."""
    values = np.array(PALETTE, np.uint16).reshape(3, 3)[NUMBERS] * scale
    codes = MaskCodes(3, colours=(((0, 0, 0), 0), ((128, 0, 0), 1), ((0, 128, 0), 2)))
    np.testing.assert_array_equal(class_mask(deep_png(*np.moveaxis(values, -1, 0)), codes, "a.png"), NUMBERS)
